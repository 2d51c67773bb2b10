"""Anthropic messages."""

from collections.abc import Sequence
from typing import Any

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.completion import Completion
from cgd_ray.teacher.wire.base import (
    ChatOptions,
    HttpRequest,
    HttpResponse,
    Wire,
    count_of,
    joined,
    json_object,
    json_request,
    list_of,
    no_answer,
    part,
    text_of,
)

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


def build_request(options: ChatOptions, messages: list[Message], max_tokens: int) -> HttpRequest:
    """Return the request for one completion of at most `max_tokens` tokens."""
    body: dict[str, Any] = {"model": options.model, "max_tokens": max_tokens}
    if options.temperature is not None:
        body["temperature"] = options.temperature
    system = [message["content"] for message in messages if message["role"] == "system"]
    if system:
        body["system"] = "\n\n".join(system)
    body["messages"] = _turns(messages, cached=options.caches_first_turn)
    url = joined(options.base_url, "/v1/messages")
    return json_request(url, body, anthropic_version=VERSION)


def parse_response(options: ChatOptions, response: HttpResponse) -> Completion:
    """Return the completion, every part of it of the right type.

    Raises:
        TeacherError: there is none; it says whether to try again.
    """
    answer = json_object(response)
    content = list_of(answer, "content")
    if content is None:
        raise no_answer("no content", answer)
    texts = [text_of(block, "text") for block in content if _is_text(block)]
    text = "".join(t for t in texts if t)
    reason = text_of(answer, "stop_reason") or "end_turn"
    usage = part(answer, "usage")
    num_cached = count_of(usage, "cache_read_input_tokens")
    return Completion(
        text=text,
        model=text_of(answer, "model") or options.model,
        finish_reason=_FINISH.get(reason, reason),
        refusal=_refusal(answer, text) if reason == "refusal" else None,
        num_input_tokens=count_of(usage, "input_tokens")
        + num_cached
        + count_of(usage, "cache_creation_input_tokens"),
        num_cached_tokens=num_cached,
        num_output_tokens=count_of(usage, "output_tokens"),
    )


def build_probe(options: ChatOptions) -> HttpRequest:
    """Return the question for the models there are, which is free."""
    url = joined(options.base_url, "/v1/models")
    return HttpRequest(url, headers={"anthropic-version": VERSION}, method="GET")


def _turns(messages: Sequence[Message], *, cached: bool) -> list[dict[str, Any]]:
    """Return the chat without its system text.

    The mark stands at the end of the first turn in both calls of a chat: the first call writes the
    cache up to there, the second one reads it.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        block: dict[str, Any] = {"type": "text", "text": message["content"]}
        if cached and not turns:
            block["cache_control"] = {"type": "ephemeral"}
        turns.append({"role": message["role"], "content": [block]})
    return turns


def _is_text(block: object) -> bool:
    return part(block, "type") == "text"


def _refusal(answer: object, text: str) -> str:
    return text_of(part(answer, "stop_details"), "explanation") or text or "the model refused"


ANTHROPIC = Wire(build_request, parse_response, build_probe)
