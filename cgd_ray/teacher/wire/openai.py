"""OpenAI chat completions, the format of most servers: vLLM, Ray Serve LLM, the tutor."""

from typing import Any
from urllib.parse import urlsplit

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.completion import Completion
from cgd_ray.teacher.wire.base import (
    ChatOptions,
    HttpRequest,
    HttpResponse,
    Wire,
    count_of,
    is_object,
    joined,
    json_object,
    json_request,
    list_of,
    no_answer,
    part,
    text_of,
)

BASE_URL = "https://api.openai.com/v1"
_OPENAI_HOSTS = ("api.openai.com", ".openai.azure.com")


def build_request(options: ChatOptions, messages: list[Message], max_tokens: int) -> HttpRequest:
    """Return the request for one completion of at most `max_tokens` tokens."""
    body: dict[str, Any] = {
        "model": options.model,
        "messages": messages,
        _length_name(options.base_url): max_tokens,
    }
    if options.temperature is not None:
        body["temperature"] = options.temperature
    return json_request(joined(options.base_url, "/chat/completions"), body)


def parse_response(options: ChatOptions, response: HttpResponse) -> Completion:
    """Return the completion, every part of it of the right type.

    Raises:
        TeacherError: there is none; it says whether to try again.
    """
    answer = json_object(response)
    choice = next(iter(list_of(answer, "choices") or ()), None)
    message = part(choice, "message")
    if not is_object(message):
        raise no_answer("no choices", answer)
    usage = part(answer, "usage")
    return Completion(
        text=text_of(message, "content") or "",
        model=text_of(answer, "model") or options.model,
        finish_reason=text_of(choice, "finish_reason") or "stop",
        refusal=text_of(message, "refusal"),
        num_input_tokens=count_of(usage, "prompt_tokens"),
        num_cached_tokens=count_of(part(usage, "prompt_tokens_details"), "cached_tokens"),
        num_output_tokens=count_of(usage, "completion_tokens"),
    )


def build_probe(options: ChatOptions) -> HttpRequest:
    """Return the question for the models there are, which is free."""
    return HttpRequest(joined(options.base_url, "/models"), method="GET")


def _length_name(base_url: str) -> str:
    """Return the limit's name: OpenAI's new models refuse the old one, many servers the new one."""
    host = urlsplit(base_url).hostname or ""
    return "max_completion_tokens" if host.endswith(_OPENAI_HOSTS) else "max_tokens"


OPENAI = Wire(build_request, parse_response, build_probe)
