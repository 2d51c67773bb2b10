"""What is sent to each provider, byte for byte, and what its answers mean."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.wire.anthropic import ANTHROPIC
from cgd_ray.teacher.wire.base import ChatOptions, HttpRequest, HttpResponse, Wire, joined
from cgd_ray.teacher.wire.bedrock import BEDROCK
from cgd_ray.teacher.wire.openai import OPENAI

FIRST: list[Message] = [
    {"role": "system", "content": "Be a careful teacher."},
    {"role": "user", "content": "Problem: 2 + 3?\nAnswer: 6 \U0001f600"},
]
SECOND: list[Message] = [
    *FIRST,
    {"role": "assistant", "content": "The sum is wrong."},
    {"role": "user", "content": "Now write it right."},
]
NOVA = "eu.amazon.nova-pro-v1:0"
CASES: dict[str, tuple[Wire, ChatOptions]] = {
    "openai": (OPENAI, ChatOptions("https://api.openai.com/v1", "gpt-5", None, True)),
    "openai-compatible": (OPENAI, ChatOptions("http://teacher:8000/v1/", "llama", 0.5, True)),
    "anthropic": (ANTHROPIC, ChatOptions("https://api.anthropic.com", "claude-x", 0.5, True)),
    "anthropic-one-turn": (
        ANTHROPIC,
        ChatOptions("https://api.anthropic.com", "claude-x", None, False),
    ),
    "bedrock": (BEDROCK, ChatOptions("https://bedrock.test", NOVA, 0.5, True)),
    "bedrock-uncached": (BEDROCK, ChatOptions("https://bedrock.test", "a:b/llama", None, True)),
}


def shown(request: HttpRequest) -> str:
    headers = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    body = json.dumps(json.loads(request.body), indent=1) + "\n" if request.body else ""
    return f"{request.method} {request.url}\n{headers}{body}"


@pytest.mark.parametrize("name", CASES)
def test_what_is_sent(name: str, golden: Callable[[str, str], None]) -> None:
    wire, options = CASES[name]
    chats = (FIRST, SECOND) if name in ("anthropic", "bedrock") else (SECOND,)
    requests = [wire.build_request(options, chat, 77) for chat in chats]
    text = "\n".join(shown(r) for r in [*requests, wire.build_probe(options)])
    golden(f"wire/{name}.txt", text)


@pytest.mark.parametrize("name", CASES)
def test_what_is_sent_can_be_sent_whatever_it_holds(name: str) -> None:
    wire, options = CASES[name]
    hostile: list[Message] = [{"role": "user", "content": 'NUL \0, half \ud83d, "quoted"\\'}]
    request = wire.build_request(options, hostile, 1)
    assert request.body.isascii()
    found = repr(json.loads(request.body)["messages"][0]["content"])
    assert repr(hostile[0]["content"]) in found


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://localhost:8000/v1", "max_tokens"),
        ("https://openrouter.ai/api/v1", "max_tokens"),
    ],
)
def test_openais_own_servers_get_the_new_name_of_the_limit(base_url: str, name: str) -> None:
    body = json.loads(OPENAI.build_request(ChatOptions(base_url, "m", 0.0, True), FIRST, 5).body)
    assert body[name] == 5
    assert len({"max_tokens", "max_completion_tokens"} & set(body)) == 1


@pytest.mark.parametrize(
    ("model", "caches"),
    [
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", True),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("global.anthropic.claude-opus-4-7", True),
        ("anthropic.claude-3-5-haiku-20241022-v1:0", True),
        ("amazon.nova-lite-v1:0", True),
        ("anthropic.claude-3-haiku-20240307-v1:0", False),
        ("anthropic.claude-v2:1", False),
        ("meta.llama3-3-70b-instruct-v1:0", False),
        ("arn:aws:bedrock:eu-west-1:1:application-inference-profile/x", False),
    ],
)
def test_a_cache_point_goes_to_models_that_take_one(model: str, caches: bool) -> None:
    options = ChatOptions("https://bedrock.test", model, 0.0, True)
    assert (b"cachePoint" in BEDROCK.build_request(options, FIRST, 5).body) is caches
    once = replace(options, caches_first_turn=False)
    assert b"cachePoint" not in BEDROCK.build_request(once, FIRST, 5).body


def test_a_path_keeps_the_roots_query() -> None:
    assert joined("https://a/b/?v=1", "/c") == "https://a/b/c?v=1"


def test_no_representation_shows_headers() -> None:
    assert "secret" not in repr(HttpRequest("https://a", b"", {"Authorization": "Bearer secret"}))


# Answers.


def anthropic(**values: object) -> dict[str, Any]:
    usage = {
        "input_tokens": 3,
        "cache_read_input_tokens": 40,
        "cache_creation_input_tokens": 5,
        "output_tokens": 7,
    }
    return {
        "type": "message",
        "model": "claude-x-1",
        "content": [{"type": "text", "text": "fine"}],
        "stop_reason": "end_turn",
        "usage": usage,
        **values,
    }


def bedrock(content: object = None, **values: object) -> dict[str, Any]:
    blocks = [{"text": "fine"}] if content is None else content
    return {
        "output": {"message": {"role": "assistant", "content": blocks}},
        "stopReason": "end_turn",
        "usage": {
            "inputTokens": 3,
            "cacheReadInputTokens": 40,
            "cacheWriteInputTokens": 5,
            "outputTokens": 7,
        },
        **values,
    }


def parsed(wire: Wire, value: object, status: int = 200, **headers: str) -> Completion:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    options = ChatOptions("https://a", "asked-for", 0.0, True)
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return wire.parse_response(options, HttpResponse(status, named, body, at_s=0.0))


def test_a_good_answer_of_anthropic() -> None:
    found = parsed(ANTHROPIC, anthropic())
    assert found == Completion("fine", "claude-x-1", "stop", None, 48, 40, 7)


def test_a_good_answer_of_bedrock() -> None:
    assert parsed(BEDROCK, bedrock()) == Completion("fine", "asked-for", "stop", None, 48, 40, 7)


def test_thoughts_are_no_answer() -> None:
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]
    assert (
        parsed(ANTHROPIC, anthropic(content=[*blocks, {"type": "text", "text": "b"}])).text == "ab"
    )
    thought = [{"reasoningContent": {"reasoningText": {"text": "hm"}}}, {"text": "ab"}]
    assert parsed(BEDROCK, bedrock(thought)).text == "ab"


@pytest.mark.parametrize(
    ("wire", "answer", "finish", "refusal"),
    [
        (ANTHROPIC, anthropic(stop_reason="stop_sequence"), "stop", None),
        (ANTHROPIC, anthropic(stop_reason="max_tokens"), "length", None),
        (ANTHROPIC, anthropic(stop_reason="model_context_window_exceeded"), "length", None),
        (ANTHROPIC, anthropic(stop_reason="pause_turn"), "pause_turn", None),
        (ANTHROPIC, anthropic(stop_reason="refusal"), "refusal", "fine"),
        (ANTHROPIC, anthropic(stop_reason="refusal", content=[]), "refusal", "the model refused"),
        (
            ANTHROPIC,
            anthropic(stop_reason="refusal", stop_details={"explanation": "no bombs"}),
            "refusal",
            "no bombs",
        ),
        (BEDROCK, bedrock(stopReason="max_tokens"), "length", None),
        (BEDROCK, bedrock(stopReason="stop_sequence"), "stop", None),
        (BEDROCK, bedrock(stopReason="guardrail_intervened"), "content_filter", None),
        (BEDROCK, bedrock(stopReason="content_filtered"), "content_filter", None),
        (BEDROCK, bedrock([], stopReason="content_filtered"), "content_filter", None),
    ],
)
def test_why_an_answer_ended(wire: Wire, answer: object, finish: str, refusal: str | None) -> None:
    found = parsed(wire, answer)
    assert (found.finish_reason, found.refusal) == (finish, refusal)


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        (ANTHROPIC, b""),
        (ANTHROPIC, b"<html>"),
        (ANTHROPIC, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}),
        (ANTHROPIC, anthropic(content=None)),
        (ANTHROPIC, anthropic(content="fine")),
        (ANTHROPIC, anthropic(content=[{"type": "text", "text": 5}])),
        (ANTHROPIC, anthropic(content=[{"type": "text", "text": "half \ud83d"}])),
        (ANTHROPIC, anthropic(stop_reason=5)),
        (ANTHROPIC, anthropic(model=[])),
        (BEDROCK, {"message": "busy"}),
        (BEDROCK, {"output": None}),
        (BEDROCK, {"output": {"message": {"content": "fine"}}}),
        (BEDROCK, bedrock([{"text": 5}])),
        (BEDROCK, bedrock(stopReason="malformed_model_output")),
        (BEDROCK, bedrock(stopReason=5)),
        (BEDROCK, [1]),
    ],
)
def test_what_is_no_answer_may_be_asked_again(wire: Wire, answer: object) -> None:
    with pytest.raises(TeacherError) as raised:
        parsed(wire, answer)
    error = raised.value
    assert (error.reason, error.permanent, error.stop) == ("bad_answer", False, False)
    assert (
        isinstance(answer, bytes)
        or b"busy" not in json.dumps(answer).encode()
        or ("busy" in error.detail)
    )


def openai_error(message: str, **values: object) -> dict[str, Any]:
    return {"error": {"message": message, **values}}


@pytest.mark.parametrize(
    ("wire", "status", "body", "reason", "ends"),
    [
        (OPENAI, 402, openai_error("pay"), "out_of_credit", "stop"),
        (OPENAI, 429, openai_error("quota", code="insufficient_quota"), "out_of_credit", "stop"),
        (OPENAI, 429, openai_error("slow", code="rate_limit_exceeded"), "rate_limited", "retry"),
        (OPENAI, 400, openai_error("no", code="unsupported_parameter"), "bad_setting", "stop"),
        (OPENAI, 400, openai_error("no", code="unsupported_value"), "bad_setting", "stop"),
        (OPENAI, 400, openai_error("max_tokens is too large"), "bad_request", "permanent"),
        (OPENAI, 400, {"detail": "The temperature of the gas"}, "bad_request", "permanent"),
        (ANTHROPIC, 400, openai_error("`temperature` is deprecated"), "bad_setting", "stop"),
        (ANTHROPIC, 400, openai_error("Your credit balance is too low"), "out_of_credit", "stop"),
        (ANTHROPIC, 400, openai_error("prompt is too long"), "bad_request", "permanent"),
        (ANTHROPIC, 402, openai_error("pay", type="billing_error"), "out_of_credit", "stop"),
        (ANTHROPIC, 413, openai_error("big"), "bad_request", "permanent"),
        (ANTHROPIC, 529, openai_error("busy"), "overloaded", "retry"),
        (BEDROCK, 403, {"message": "expired"}, "unauthorized", "stop"),
        (BEDROCK, 404, {"message": "which?"}, "not_found", "stop"),
        (BEDROCK, 408, {"message": "slow model"}, "overloaded", "retry"),
        (BEDROCK, 424, {"message": "model failed"}, "overloaded", "retry"),
        (BEDROCK, 429, {"message": "slow"}, "rate_limited", "retry"),
        (BEDROCK, 400, {"message": "too long"}, "bad_request", "permanent"),
        (
            BEDROCK,
            400,
            {"message": "The provided model identifier is invalid."},
            "not_found",
            "stop",
        ),
    ],
)
def test_what_an_error_means(
    wire: Wire, status: int, body: dict[str, Any], reason: str, ends: str
) -> None:
    with pytest.raises(TeacherError) as raised:
        parsed(wire, body, status)
    error = raised.value
    assert error.reason == reason
    assert (error.stop, error.permanent) == (ends == "stop", ends == "permanent")
    words = body.get("error", body)
    assert f"HTTP {status}: {words.get('message', words.get('detail'))}" in error.detail


def test_bedrocks_quota_is_a_rate_whatever_its_status() -> None:
    with pytest.raises(TeacherError) as raised:
        parsed(
            BEDROCK, {"message": "x"}, 400, x_amzn_errortype="ServiceQuotaExceededException:http"
        )
    assert (raised.value.reason, raised.value.permanent) == ("rate_limited", False)


def test_the_servers_wish_counts_from_when_it_was_heard() -> None:
    with pytest.raises(TeacherError) as raised:
        parsed(OPENAI, {}, 429, retry_after="Thu, 01 Jan 1970 00:01:40 GMT")
    assert raised.value.retry_after_s == 100.0
