"""Amazon Bedrock Converse: one format for all of its chat models."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.wire.base import (
    ChatOptions,
    HttpRequest,
    HttpResponse,
    Wire,
    count_of,
    error_words,
    joined,
    json_object,
    json_request,
    list_of,
    no_answer,
    part,
    text_of,
)

BASE_URL = "https://bedrock-runtime.{region}.amazonaws.com"
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
# Others refuse a request that holds a cache point. Profiles of one's own (ARNs) hide their model.
_CACHING_MODEL = re.compile(
    r"anthropic\.claude-(3-5-haiku|3-7-sonnet|[a-z]+-\d)|amazon\.nova-(micro|lite|pro|premier)"
)


def build_request(options: ChatOptions, messages: list[Message], max_tokens: int) -> HttpRequest:
    """Return the request for one completion of at most `max_tokens` tokens."""
    config: dict[str, Any] = {"maxTokens": max_tokens}
    if options.temperature is not None:
        config["temperature"] = options.temperature
    cached = options.caches_first_turn and _CACHING_MODEL.search(options.model) is not None
    body: dict[str, Any] = {
        "messages": _turns(messages, cached=cached),
        "inferenceConfig": config,
    }
    system = [{"text": m["content"]} for m in messages if m["role"] == "system"]
    if system:
        body["system"] = system
    return json_request(_url(options), body)


def parse_response(options: ChatOptions, response: HttpResponse) -> Completion:
    """Return the completion, every part of it of the right type.

    Raises:
        TeacherError: there is none; it says whether to try again.
    """
    _raise_own_errors(response)
    answer = json_object(response)
    content = list_of(part(part(answer, "output"), "message"), "content")
    if content is None:
        raise no_answer("no content", answer)
    reason = text_of(answer, "stopReason") or "end_turn"
    if reason.startswith("malformed_"):
        raise TeacherError("bad_answer", f"the model's output could not be read ({reason})")
    usage = part(answer, "usage")
    num_cached = count_of(usage, "cacheReadInputTokens")
    return Completion(
        text="".join(text_of(block, "text") or "" for block in content),
        model=options.model,
        finish_reason=_FINISH.get(reason, reason),
        refusal=None,
        num_input_tokens=count_of(usage, "inputTokens")
        + num_cached
        + count_of(usage, "cacheWriteInputTokens"),
        num_cached_tokens=num_cached,
        num_output_tokens=count_of(usage, "outputTokens"),
    )


def build_probe(options: ChatOptions) -> HttpRequest:
    """Return a request without messages.

    The service has no free question. It checks the caller first and the request second, so this
    one ends before a model is asked.
    """
    return json_request(_url(options), {"messages": []})


def _url(options: ChatOptions) -> str:
    # Model ids hold colons, ARNs slashes too: each is one path segment.
    return joined(options.base_url, f"/model/{quote(options.model, safe='')}/converse")


def _turns(messages: Sequence[Message], *, cached: bool) -> list[dict[str, Any]]:
    """Return the chat without its system text; a cache point ends the first turn, in both calls."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        content: list[dict[str, Any]] = [{"text": message["content"]}]
        if cached and not turns:
            content.append({"cachePoint": {"type": "default"}})
        turns.append({"role": message["role"], "content": content})
    return turns


def _raise_own_errors(response: HttpResponse) -> None:
    """Raise what Bedrock says with a status that means something else elsewhere."""
    if response.status not in (400, 424):
        return
    detail = f"HTTP {response.status}: {error_words(response)}"
    kind = response.headers.get("x-amzn-errortype", "")
    if response.status == 424:  # the model failed on its side
        raise TeacherError("overloaded", detail)
    if kind.startswith(("ServiceQuotaExceeded", "Throttling")):
        raise TeacherError("rate_limited", detail)
    if "model identifier is invalid" in detail:
        raise TeacherError("not_found", detail, stop=True)


BEDROCK = Wire(build_request, parse_response, build_probe)
