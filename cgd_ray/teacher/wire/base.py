"""What the wire formats share: requests, responses, and what a failed response means.

All of it is pure: `cgd_ray.teacher.http` does the sending.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.retry import parse_retry_after

JSON_HEADERS: Mapping[str, str] = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, not yet authorised."""

    url: str  # percent-encoded
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)  # a key, later
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One response, whole."""

    status: int
    headers: Mapping[str, str]  # looked up in lower case
    body: bytes
    at_s: float  # Unix time of its arrival


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Where every chat of a teacher goes and how it is answered."""

    base_url: str  # root of the API
    model: str  # as that API knows it
    temperature: float | None  # None: not sent, for models that refuse it
    caches_first_turn: bool  # a second turn of the same chat will follow


@dataclass(frozen=True, slots=True)
class Wire:
    """A provider's format, as pure functions."""

    build_request: Callable[[ChatOptions, list[Message], int], HttpRequest]
    """Options, messages and `max_tokens` -> the request that asks for one completion."""
    parse_response: Callable[[ChatOptions, HttpResponse], Completion]
    """Its response -> the completion. Raises TeacherError."""
    build_probe: Callable[[ChatOptions], HttpRequest]
    """A request that tests address and key and costs nothing."""


def joined(base_url: str, path: str) -> str:
    """Return an API's root with a path below it; a query of the root stays at the end."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))


def json_request(url: str, body: Mapping[str, Any], **headers: str) -> HttpRequest:
    """Return a POST of JSON; it is ASCII, so that even a lone surrogate can be sent."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest(url, json.dumps(body).encode(), {**JSON_HEADERS, **named})


def json_object(response: HttpResponse) -> dict[str, Any]:
    """Return the object that a successful response holds.

    Raises:
        TeacherError: its status is an error, or it holds something else.
    """
    if not 200 <= response.status < 300:
        raise status_error(response)
    try:
        value: object = json.loads(response.body)
    except (ValueError, RecursionError) as error:
        shown = line(response.body.decode("utf-8", "replace"))[:100] or "nothing"
        raise TeacherError("bad_answer", f"not JSON ({line(error)}): {shown}") from error
    if not isinstance(value, dict):
        raise TeacherError("bad_answer", f"JSON, but a {type(value).__name__}, not an object")
    return cast("dict[str, Any]", value)


def part(value: object, name: str) -> object:
    """Return a member of an object; None if there is no such member or no object."""
    return cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None


def is_object(value: object) -> bool:
    """Return whether a value is a JSON object."""
    return isinstance(value, dict)


def list_of(value: object, name: str) -> list[object] | None:
    """Return a member that is a list; None if it is anything else."""
    found = part(value, name)
    return cast("list[object]", found) if isinstance(found, list) else None


def text_of(value: object, name: str) -> str | None:
    """Return a member that is text or absent.

    Raises:
        TeacherError: it is something else, or holds what no file can store.
    """
    text = part(value, name)
    if text is not None and not isinstance(text, str):
        raise TeacherError("bad_answer", f"{name} is {type(text).__name__}, not text")
    if text and _storable(text) != text:
        raise TeacherError("bad_answer", f"{name} holds lone surrogates, which no file can store")
    return text


def count_of(value: object, name: str) -> int:
    """Return a count of tokens; 0 where there is none that can be believed."""
    count = part(value, name)
    return count if type(count) is int and 0 <= count < 2**31 else 0


def no_answer(what: str, value: Mapping[str, Any]) -> TeacherError:
    """Return the error for JSON that is no completion, with the server's own words if it has any.

    Args:
        what: is missing in it.
        value: the JSON.
    """
    words = _words(value)
    return TeacherError("bad_answer", f"{what} in the answer" + (f": {words}" if words else ""))


def status_error(response: HttpResponse) -> TeacherError:
    """Return what an error status means for the call."""
    status = response.status
    detail = f"HTTP {status}: {error_words(response)}"
    wait = parse_retry_after(response.headers.get("retry-after"), response.at_s)
    if status in (401, 403):
        return TeacherError("unauthorized", detail, stop=True)
    if status == 402 or _out_of_credit(response):
        return TeacherError("out_of_credit", detail, stop=True)
    if status == 404:
        return TeacherError("not_found", detail, stop=True)
    if 300 <= status < 400:
        return TeacherError("redirect", f"{detail} (never followed)", stop=True)
    if status == 429:
        return TeacherError("rate_limited", detail, retry_after_s=wait)
    if status in (408, 409) or status >= 500:
        return TeacherError("overloaded", detail, retry_after_s=wait)
    if status == 400 and _about_settings(response):
        hint = "change teacher.model or teacher.temperature (none: not sent)"
        return TeacherError("bad_setting", f"{detail}; {hint}", stop=True)
    return TeacherError("bad_request", detail, permanent=True)


def error_words(response: HttpResponse) -> str:
    """Return what an error's body says, in one line."""
    words = _words(_loaded(response.body))
    return words or line(response.body.decode("utf-8", "replace")) or "no explanation"


def line(value: object) -> str:
    """Return anything as one line of storable text, at most 300 characters long."""
    return _storable(" ".join(str(value).split())[:300])


def _words(value: object) -> str:
    """Return the explanation in an error's JSON, wherever the usual servers put it."""
    inner = part(value, "error")
    for found in (part(inner, "message"), inner, part(value, "message"), part(value, "detail")):
        if isinstance(found, str) and found.strip():
            return line(found)
    return ""


def _out_of_credit(response: HttpResponse) -> bool:
    """Return whether a refusal is about money: providers hide it behind 400 and 429."""
    if response.status not in (400, 429):
        return False
    error = part(_loaded(response.body), "error")
    kinds = (part(error, "code"), part(error, "type"))
    words = str(part(error, "message")).lower()
    return (
        any(kind in ("insufficient_quota", "billing_error") for kind in kinds)
        or "credit balance is too low" in words
    )


def _about_settings(response: HttpResponse) -> bool:
    """Return whether a refusal is about what is the same in every request of the run.

    Only fixed words in fixed places count: problems about temperature are no such refusal, even
    where a server says them back.
    """
    error = part(_loaded(response.body), "error")
    if part(error, "code") in ("unsupported_parameter", "unsupported_value"):
        return True
    return error_words(response).lstrip("`'\"").startswith("temperature")


def _loaded(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
