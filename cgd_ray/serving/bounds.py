"""What a request to the served address may be: pure functions from its parts to a refusal."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

CHAT, COMPLETIONS, MODELS, HEALTH = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/health",
)
# All that answers, with its method; `cgd_ray/serving/playground.py` adds its page.
ROUTES = {CHAT: "POST", COMPLETIONS: "POST", MODELS: "GET", HEALTH: "GET"}

# Ray Serve's proxy obeys these: a client could lift the time limit, hold an engine after it has
# gone, or choose where its request runs.
_REFUSED_HEADERS = (
    "x-request-timeout-seconds",
    "x-request-disconnect-disabled",
    "serve_multiplexed_model_id",
)
# What the application behind the gateway is shown. Not the key, which its logs must not have, and
# nothing that chooses an engine's replica or rank.
FORWARDED_HEADERS = frozenset(
    ("host", "content-type", "content-length", "accept", "x-request-id", "traceparent")
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for."""

    max_body_bytes: int
    max_tokens: int  # of one answer
    max_choices: int  # prompts x n
    structured_outputs: bool  # tools and JSON schemas
    models: frozenset[str]  # ids that are served


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served, as OpenAI's clients expect to be told."""

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after_s: int | None = None

    def body(self) -> bytes:
        """Return the response's JSON."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


def check_route(method: str, path: str, routes: Mapping[str, str]) -> Refusal | None:
    """Return 404 for a path that is not on the list and 405 for a method that it lacks."""
    wanted = routes.get(path)
    if wanted is None:
        return Refusal(404, f"there is no {path[:80]!r} here", "not_found")
    if method != wanted:
        return Refusal(405, f"{path} takes {wanted}, not {method[:16]!r}", "method_not_allowed")
    return None


def check_headers(headers: Mapping[str, str], limits: Limits) -> Refusal | None:
    """Return the refusal of a POST whose headers say enough: 400, 413 or 415.

    Args:
        headers: by lower-case name.
        limits: bounds.
    """
    for name in _REFUSED_HEADERS:
        if name in headers:
            return Refusal(400, f"the header {name} is not accepted here", "invalid_header")
    if not _REQUEST_ID.fullmatch(headers.get("x-request-id", "none")):
        return Refusal(400, "x-request-id is no id of up to 128 characters", "invalid_header")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return Refusal(415, "send application/json", "unsupported_media_type")
    if headers.get("content-encoding", "identity").lower() != "identity":
        return Refusal(415, "send the body uncompressed", "unsupported_media_type")
    return _check_length(headers.get("content-length"), limits)


def _check_length(content_length: str | None, limits: Limits) -> Refusal | None:
    if content_length is None:
        return None
    if not (content_length.isascii() and content_length.isdigit()):
        return Refusal(400, "Content-Length is not a number", "invalid_header")
    # Short first: Python refuses to read numbers of thousands of digits.
    digits = content_length.lstrip("0")
    if len(digits) > 18 or int(digits or "0") > limits.max_body_bytes:
        return too_long(limits)
    return None


def too_long(limits: Limits) -> Refusal:
    """Return the refusal of a body over `serve.max_body_bytes`."""
    return Refusal(
        413,
        f"the request is longer than {limits.max_body_bytes} bytes (serve.max_body_bytes)",
        "request_too_large",
    )
