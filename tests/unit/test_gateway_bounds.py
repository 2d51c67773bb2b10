"""What a request to the served address may be: the pure rules."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from cgd_ray.serving.bounds import (
    CHAT,
    COMPLETIONS,
    ROUTES,
    Limits,
    check_headers,
    check_route,
)
from cgd_ray.serving.request_body import check_body

LIMITS = Limits(
    max_body_bytes=10_000,
    max_tokens=2048,
    max_choices=16,
    structured_outputs=False,
    models=frozenset(("base", "student")),
)
OPEN = replace(LIMITS, structured_outputs=True)
USER = [{"role": "user", "content": "2 + 2 ="}]
JSON = {"content-type": "application/json"}


def chat(**fields: object) -> bytes:
    return json.dumps({"model": "student", "messages": USER, **fields}).encode()


def complete(**fields: object) -> bytes:
    return json.dumps({"model": "student", "prompt": "2 + 2 =", **fields}).encode()


def said(path: str, body: bytes, limits: Limits = LIMITS) -> str:
    refusal = check_body(path, body, limits)
    assert refusal is not None, "accepted"
    assert refusal.status == 400
    assert json.loads(refusal.body())["error"]["message"] == refusal.message
    return refusal.message


def test_the_routes_are_these_and_no_others() -> None:
    assert ROUTES == {
        "/v1/chat/completions": "POST",
        "/v1/completions": "POST",
        "/v1/models": "GET",
        "/health": "GET",
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", None),
        ("POST", "/v1/chat/completions", None),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/embeddings", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "//v1/chat/completions", 404),
        ("POST", "/v1/load_lora_adapter", 404),
        ("POST", "/tokenize", 404),
        ("GET", "/metrics", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/v1/models/../../metrics", 404),
    ],
)
def test_only_listed_routes_answer(method: str, path: str, status: int | None) -> None:
    refusal = check_route(method, path, ROUTES)
    assert (refusal.status if refusal else None) == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (JSON, None),
        ({"content-type": "application/json; charset=utf-8"}, None),
        ({**JSON, "content-length": "10000"}, None),
        ({**JSON, "content-length": "10001"}, 413),
        ({**JSON, "content-length": "0" * 30 + "5"}, None),
        ({**JSON, "content-length": "9" * 5000}, 413),
        ({**JSON, "content-length": "-1"}, 400),
        ({**JSON, "content-length": "1e3"}, 400),
        ({"content-type": "text/plain"}, 415),
        ({}, 415),
        ({**JSON, "content-encoding": "gzip"}, 415),
        ({**JSON, "x-request-timeout-seconds": "0"}, 400),
        ({**JSON, "x-request-disconnect-disabled": "?1"}, 400),
        ({**JSON, "serve_multiplexed_model_id": "x"}, 400),
        ({**JSON, "x-request-id": "3f2504e0-4f89-11d3:9a.0c_1"}, None),
        ({**JSON, "x-request-id": "a b"}, 400),
        ({**JSON, "x-request-id": "x" * 129}, 400),
    ],
)
def test_headers_say_enough_to_refuse(headers: dict[str, str], status: int | None) -> None:
    refusal = check_headers(headers, LIMITS)
    assert (refusal.status if refusal else None) == status


@pytest.mark.parametrize(
    "body",
    [
        chat(),
        chat(n=16, max_tokens=2048, temperature=0, top_p=1, seed=-1, stop=["\n", "Q:"]),
        chat(stream=True, stream_options={"include_usage": True}, user="u", logit_bias={"7": -100}),
        chat(max_tokens=None, n=None, stop=None, response_format={"type": "text"}),
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}]),
        chat(
            messages=[
                *USER,
                {"role": "assistant", "content": "4", "refusal": None, "tool_calls": []},
                *USER,
            ]
        ),
        chat(messages=[{"role": "user", "content": "\ud83d\ude00"}]),
        chat(logprobs=True, top_logprobs=5, metadata={"a": "b"}, store=False),
    ],
)
def test_what_clients_send_is_accepted(body: bytes) -> None:
    assert check_body(CHAT, body, LIMITS) is None


@pytest.mark.parametrize(
    "body",
    [
        complete(),
        complete(prompt=["a", "b"], n=8),
        complete(prompt=[1, 2, 3], echo=True, logprobs=5, max_tokens=0),
        complete(prompt=[[1, 2], [3]]),
        complete(ignore_eos=True, min_tokens=5, repetition_penalty=1.0),
    ],
)
def test_what_completion_clients_send_is_accepted(body: bytes) -> None:
    assert check_body(COMPLETIONS, body, LIMITS) is None


# Each runs a template, loads a tensor, fetches an address, compiles a grammar, skips the queue,
# names an engine's request, multiplies work, or changes what the engine was started with.
DANGEROUS = (
    "chat_template chat_template_kwargs documents mm_processor_kwargs media_io_kwargs "
    "structured_outputs prompt_embeds priority request_id session_id cache_salt "
    "kv_transfer_params ec_transfer_params vllm_xargs use_beam_search prompt_logprobs "
    "logprob_token_ids allowed_token_ids bad_words truncate_prompt_tokens best_of guided_regex "
    "repetition_detection stream_interval tools tool_choice temprature"
)


@pytest.mark.parametrize("field", DANGEROUS.split())
def test_fields_off_the_list_are_refused_by_name(field: str) -> None:
    assert f"'{field}' is not accepted" in said(CHAT, chat(**{field: 1}))
    assert f"'{field}' is not accepted" in said(COMPLETIONS, complete(**{field: 1}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n": 10**6}, "n=1000000 is not between 1 and 16 (serve.max_choices)"),
        ({"n": 10**30}, "n=(over 20 digits) is not between"),
        ({"n": 0}, "n=0"),
        ({"n": True}, "n must be a whole number"),
        ({"n": 2.0}, "n must be a whole number"),
        ({"n": "2"}, "n must be a whole number"),
        ({"max_tokens": 2049}, "max_tokens=2049 is not between 0 and 2048 (serve.max_tokens)"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens=1000000000"),
        ({"min_tokens": 10**9}, "min_tokens=1000000000"),
        ({"temperature": -1}, "temperature=-1 is not between 0 and 100"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": 10**400}, "temperature=(over 20 digits)"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"seed": 2**63}, "seed="),
        ({"top_logprobs": 10**6}, "top_logprobs=1000000"),
        ({"stream": "yes"}, "stream must be true or false"),
        ({"stop": ["x"] * 17}, "17 stops are more than 16"),
        ({"stop": [""]}, "each stop is text"),
        ({"stop": {"a": 1}}, "each stop is text"),
        ({"stop": "x" * 257}, "each stop is text"),
        ({"logit_bias": {str(i): 1 for i in range(301)}}, "at most 300"),
        ({"logit_bias": {"a": 1}}, "must be a token id"),
        ({"logit_bias": {"1": 1e9}}, "1=1000000000.0 is not between"),
        ({"stop_token_ids": [-1]}, "each stop token must be a token id"),
        ({"stop_token_ids": list(range(301))}, "at most 300"),
        ({"response_format": {"type": "json_schema"}}, "only plain text"),
        ({"model": None}, "model must be given"),
        ({"model": 7}, "model must be given"),
        ({"user": {}}, "user must be text"),
    ],
)
def test_values_out_of_bounds_are_refused_by_value_and_limit(
    fields: dict[str, Any], words: str
) -> None:
    assert words in said(CHAT, chat(**fields))


@pytest.mark.parametrize("model", ["nobody", "base:../../etc", "", "Base", "x" * 10_000])
def test_only_served_models_are_asked(model: str) -> None:
    refusal = check_body(CHAT, chat(model=model), LIMITS)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.param) == (404, "model_not_found", "model")
    assert len(refusal.message) < 200


def image(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "hello",
        ["hello"],
        [{"content": "x"}],
        [{"role": "root", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": 7}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": image("http://169.254.169.254/latest")}],
        [{"role": "user", "content": [{"type": "text", "text": 7}]}],
        [{"role": "user", "content": [{"type": "text", "text": "a", "uuid": "b"}]}],
        [{"role": "user", "content": "x", "name": 3}],
        [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
    ],
)
def test_messages_are_text_alone(messages: object) -> None:
    assert "message" in said(CHAT, chat(messages=messages))


@pytest.mark.parametrize(
    "prompt", [None, [], {}, 7, [[]], ["a", 1], [["a"]], [-1], [True], [2**31], ["a", [1]]]
)
def test_prompts_are_text_or_token_ids(prompt: object) -> None:
    assert "prompt" in said(COMPLETIONS, complete(prompt=prompt))


def test_prompts_times_n_is_bounded() -> None:
    assert "17 prompts with n=1" in said(COMPLETIONS, complete(prompt=["a"] * 17))
    assert "4 prompts with n=5" in said(COMPLETIONS, complete(prompt=["a"] * 4, n=5))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'"\xff"', "not Unicode"),
        (chat()[:-1] + b', "temperature": NaN}', "NaN is no JSON number"),
        (chat()[:-1] + b', "temperature": Infinity}', "Infinity is no JSON number"),
        (b'{"model": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (rb'{"model": "m", "messages": [{"role": "user", "content": "\ud800"}]}', "not Unicode"),
    ],
)
def test_malformed_json_is_refused(body: bytes, words: str) -> None:
    assert words in said(CHAT, body)


def test_tools_and_schemas_can_be_switched_on() -> None:
    body = chat(tools=[], tool_choice="auto", response_format={"type": "json_object"})
    assert check_body(CHAT, body, OPEN) is None
    assert said(CHAT, chat(chat_template="x"), OPEN)


def test_a_whole_body_is_checked_in_milliseconds() -> None:
    body = chat(messages=[{"role": "user", "content": "a " * 500_000}])
    start = time.process_time()
    assert check_body(CHAT, body, LIMITS) is None
    assert time.process_time() - start < 0.2
