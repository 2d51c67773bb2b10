"""Every format over real HTTP: keys and signatures, addresses, bounds, the free check."""

import asyncio
import gzip
import json
import logging
import socket
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import pytest

from cgd_ray.errors import UserError
from cgd_ray.pipeline.teacher_address import check_teacher
from cgd_ray.prompts.messages import Message
from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.backend import Backend, open_backend, own_base_url
from cgd_ray.teacher.completion import Completion, TeacherError, rejected_completion
from tests.support.scripted_teacher import (
    Reply,
    ScriptedTeacher,
    answer,
    chat,
    scripted_teacher,
)
from tests.support.sigv4 import expected_signature
from tests.support.teacher_faults import FAULTS

KEY = "a-key/of+this-test"
AWS_SECRET = "an/aws+secret"
ASKED: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "<problem>\nq\n</problem>"},
]
GOOD = {
    "openai": answer(chat("fine")),
    "anthropic": answer(
        {
            "type": "message",
            "model": "claude",
            "content": [{"type": "text", "text": "fine"}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "cache_read_input_tokens": 8, "output_tokens": 2},
        }
    ),
    "bedrock": answer(
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "fine"}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 3, "cacheReadInputTokens": 8, "outputTokens": 2},
        }
    ),
}
BACKENDS = tuple(GOOD)
MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of this test only, and proxies that must not be asked: nobody listens there."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AN-AWS-KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "an-aws-session")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def settings(backend: str, server: ScriptedTeacher | None, **values: Any) -> TeacherSettings:
    root = server and f"http://127.0.0.1:{server.port}"
    defaults = {"base_url": root, "allow_private_address": True, "region": "eu-west-1"}
    return TeacherSettings(backend=backend, model=MODEL, **{**defaults, **values})  # type: ignore[arg-type]


def completed(teacher: TeacherSettings, base_url: str | None = None) -> Completion:
    async def run() -> Completion:
        backend = open_backend(teacher, base_url or own_base_url(teacher))
        return await closing(backend, backend.complete(ASKED, 55))

    return asyncio.run(run())


async def closing(backend: Backend, call: Coroutine[Any, Any, Completion]) -> Completion:
    try:
        return await call
    finally:
        await backend.close()


def refused(teacher: TeacherSettings, base_url: str | None = None) -> TeacherError:
    with pytest.raises(TeacherError) as raised:
        completed(teacher, base_url)
    return raised.value


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_teacher_answers(backend: str) -> None:
    with scripted_teacher({}, GOOD[backend]) as server:
        found = completed(settings(backend, server))
        (request,) = server.requests
    assert (found.text, found.finish_reason) == ("fine", "stop")
    assert found.num_input_tokens == 11
    assert "Be brief." in json.dumps(request.body)
    paths = {
        "openai": "/chat/completions",
        "anthropic": "/v1/messages",
        "bedrock": "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
    }
    assert request.path == paths[backend]


def test_each_provider_gets_its_key_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(backend: str) -> dict[str, str]:
        with scripted_teacher({}, GOOD[backend]) as server:
            completed(settings(backend, server))
            return dict(server.requests[0].headers)

    assert sent("openai")["authorization"] == f"Bearer {KEY}"
    assert sent("anthropic")["x-api-key"] == KEY
    assert "authorization" not in sent("anthropic")
    assert sent("anthropic")["anthropic-version"] == "2023-06-01"
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    assert sent("bedrock")["authorization"] == f"Bearer {KEY}"
    assert "x-amz-date" not in sent("bedrock")


def test_bedrock_requests_carry_a_signature_that_a_server_can_check() -> None:
    with scripted_teacher({}, GOOD["bedrock"]) as server:
        completed(settings("bedrock", server))
        (request,) = server.requests
    credential = (
        "AN-AWS-KEY/" + request.headers["x-amz-date"][:8] + "/eu-west-1/bedrock/aws4_request"
    )
    assert f"Credential={credential}," in request.headers["authorization"]
    assert request.headers["x-amz-security-token"] == "an-aws-session"
    given = request.headers["authorization"].rpartition("Signature=")[2]
    assert given == expected_signature(request, AWS_SECRET)
    assert given != expected_signature(request, "another secret")


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_error_or_log_shows_a_key(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told = json.dumps({"error": {"message": f"bad key {KEY} or an-aws-session"}}).encode()
    for reply in (Reply(told, 401), Reply(told, 400), Reply(told, 200), Reply(told[:-5], 200)):
        with scripted_teacher({"q": [reply]}) as server:
            teacher = settings(backend, server)
            error = refused(teacher)
            shown = f"{error!r} {error} {error.__cause__!r} {teacher!r} {caplog.text}"
        assert "bad key" in error.detail
        secret = "an-aws-session" if backend == "bedrock" else KEY
        assert secret not in error.detail
        if backend != "bedrock":  # botocore logs the token at debug level, as all of its users know
            assert secret not in shown
        assert AWS_SECRET not in shown


def test_a_key_that_cannot_be_one_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("two words-of-a-key", "line\nbreak-of-a-key", "käse-of-a-key"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(UserError, match=r"\$OPENAI_API_KEY holds no key") as raised:
            open_backend(settings("openai", None), "http://127.0.0.1:9")
        assert "of-a-key" not in str(raised.value)


# Addresses.


@pytest.fixture
def decoy() -> Iterator[ScriptedTeacher]:
    """A server behind an address that may not be called; it must hear of nothing."""
    with scripted_teacher({}) as server:
        yield server
        assert server.requests == []


def test_a_private_address_is_not_connected_to(decoy: ScriptedTeacher) -> None:
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        teacher = settings(
            "openai", None, base_url=f"http://{host}:{decoy.port}", allow_private_address=False
        )
        error = refused(teacher)
        assert (error.reason, error.stop) == ("refused_address", True)
        assert "teacher.allow_private_address" in error.detail


def resolving(monkeypatch: pytest.MonkeyPatch, addresses: Sequence[str]) -> list[str]:
    """Make a name point to each address in turn, the last one for ever; return what was asked."""
    left, asked, real = list(addresses), [], socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "teacher.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_that_changes_its_address_after_the_check_is_not_called(
    decoy: ScriptedTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolving(monkeypatch, ["8.8.8.8", "127.0.0.1"])
    url = f"http://teacher.example:{decoy.port}"
    teacher = settings("openai", None, base_url=url, allow_private_address=False)
    with pytest.raises(UserError, match="private address"):
        check_teacher(teacher)
    assert len(asked) == 2, "once to be checked, once to be called"
    assert refused(teacher).reason == "refused_address"


def test_a_name_on_the_cloud_metadata_address_is_never_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, ["169.254.169.254"])
    error = refused(settings("openai", None, base_url="http://teacher.example"))
    assert (error.reason, error.stop) == ("refused_address", True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_carry_nothing_on(backend: str, status: int, decoy: ScriptedTeacher) -> None:
    away = Reply(b"", status, {"Location": decoy.base_url})
    with scripted_teacher({"q": [away], "": [away]}) as server:
        assert refused(settings(backend, server)).reason == "redirect"
        with pytest.raises(UserError, match="redirects to another address"):
            check_teacher(settings(backend, server))


def test_the_runs_own_server_may_be_private() -> None:
    with scripted_teacher({}) as server:
        teacher = settings("openai", None, allow_private_address=False)
        assert completed(teacher, server.base_url).text == "a fine answer"


# Faults.


@pytest.mark.parametrize("name", FAULTS)
def test_no_fault_is_misclassified(name: str) -> None:
    """The table that `benchmarks/teacher_faults.py` makes for other clients too."""
    fault = FAULTS[name]
    with scripted_teacher({"q": [fault.reply] * 9}) as server:
        teacher = settings("openai", server, timeout_s=0.3 if name == "hang" else 30)
        try:
            found = completed(teacher)
        except TeacherError as error:
            meaning = "stop" if error.stop else "fail" if error.permanent else "retry"
            assert (meaning, error.retry_after_s or 0.0) == (fault.meaning, fault.wish_s)
        else:
            assert rejected_completion("q", "critiques", found) is not None
            assert fault.meaning == "fail"
        assert len(server.requests) == 1


# Bounds and connections.


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    bomb = gzip.compress(b" " * (200 << 20), 1)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with scripted_teacher({"q": [Reply(bomb, headers=headers)]}) as server:
        error = refused(settings("openai", server))
    assert (error.reason, error.permanent, error.stop) == ("bad_answer", False, False)
    assert "32 MiB" in error.detail


def test_a_compressed_answer_is_read() -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    good = Reply(gzip.compress(GOOD["openai"].body), headers=headers)
    with scripted_teacher({"q": [good]}) as server:
        assert completed(settings("openai", server)).text == "fine"


def test_an_odd_address_stops_the_stage() -> None:
    error = refused(settings("openai", None, base_url="http://2130706433/v1"))
    assert (error.reason, error.stop) == ("bad_address", True)


# The free check before a run.


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_check_costs_nothing(backend: str) -> None:
    refusal = answer({"message": "messages: at least 1"}, 400)
    good = refusal if backend == "bedrock" else answer({"data": []})
    with scripted_teacher({}, good) as server:
        check_teacher(settings(backend, server))
        (request,) = server.requests
    if backend == "bedrock":
        assert request.body == {"messages": []}, "no model can answer it"
        assert request.headers["authorization"].endswith(expected_signature(request, AWS_SECRET))
    else:
        assert (request.method, request.raw) == ("GET", b"")
        assert request.path in ("/models", "/v1/models")


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        ("openai", r"\$OPENAI_API_KEY"),
        ("anthropic", r"\$ANTHROPIC_API_KEY"),
        ("bedrock", "the AWS credential chain"),
    ],
)
def test_a_refused_key_is_one_line_before_any_work(backend: str, says: str) -> None:
    with (
        scripted_teacher({}, answer({"message": "who is it?"}, 403)) as server,
        pytest.raises(UserError, match=rf"answers 403 to the key from {says}: .*who is it\?"),
    ):
        check_teacher(settings(backend, server))


def test_an_echo_needs_no_check() -> None:
    check_teacher(TeacherSettings(backend="echo"))


def test_what_bedrock_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UserError, match=r"needs a region: set teacher\.region"):
        check_teacher(TeacherSettings(backend="bedrock"))
    with pytest.raises(UserError, match="finds no AWS credentials"):
        open_backend(settings("bedrock", None), "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match="nobody"):
        open_backend(settings("bedrock", None), "http://127.0.0.1:9")


# What stands in the settings.


def test_a_provider_has_its_own_address() -> None:
    assert own_base_url(TeacherSettings()) == "https://api.openai.com/v1"
    assert own_base_url(TeacherSettings(backend="anthropic")) == "https://api.anthropic.com"
    assert (
        own_base_url(TeacherSettings(backend="bedrock", region="eu-west-1"))
        == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    )
    assert own_base_url(TeacherSettings(backend="anthropic", base_url="http://a")) == "http://a"


def test_a_temperature_over_the_providers_limit_is_named() -> None:
    with pytest.raises(ValueError, match=r"teacher\.temperature=1\.5 is over 1"):
        TeacherSettings(backend="anthropic", temperature=1.5)
    assert TeacherSettings(backend="openai", temperature=1.5).temperature == 1.5


def test_an_echo_is_the_same_each_time() -> None:
    second: list[Message] = [
        *ASKED,
        {"role": "assistant", "content": "A critique."},
        {"role": "user", "content": "x" * 1000 + "end"},
    ]

    async def run() -> list[Completion]:
        backend = open_backend(TeacherSettings(backend="echo", model="echo-1"), "echo:")
        return [await backend.complete(c, 55) for c in (ASKED, second, second)]

    first, last, again = asyncio.run(run())
    assert last == again
    assert first.text == ASKED[-1]["content"]
    assert last.text == "x" * 217 + "end"
    assert (first.model, first.finish_reason, first.num_cached_tokens) == ("echo-1", "stop", 0)
    assert last.num_cached_tokens == first.num_input_tokens
    assert last.num_input_tokens > last.num_cached_tokens
