"""Teacher faults over a real HTTP server: each becomes the right status, after so many calls."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cgd_ray.pipeline.teacher_address import check_teacher
from cgd_ray.records import Critique, Failure, Refinement
from cgd_ray.settings import TeacherSettings
from cgd_ray.shards import commit_shard, read_failures
from cgd_ray.store import LocalStore
from cgd_ray.teacher.chain import TaughtRows, teach_all
from cgd_ray.teacher.credentials import HeaderKey
from cgd_ray.teacher.critique import build_critique_messages
from cgd_ray.teacher.http import HttpLimits, HttpTeacher
from cgd_ray.teacher.refinement import build_refinement_messages
from cgd_ray.teacher.wire.base import ChatOptions
from cgd_ray.teacher.wire.openai import OPENAI
from tests.support.plain_asker import PlainAsker
from tests.support.records import completion, teacher_row
from tests.support.scripted_teacher import (
    KEY,
    Reply,
    ScriptedTeacher,
    answer,
    chat,
    scripted_teacher,
)

SETTINGS = TeacherSettings(max_attempts=2, critique_max_tokens=33, refinement_max_tokens=44)
HTML = {"Content-Type": "text/html"}
GOOD = answer(chat())


def taught(
    server: ScriptedTeacher,
    problems: Sequence[str],
    *,
    timeout_s: float = 60.0,
    in_flight: int = 64,
) -> TaughtRows:
    async def run() -> TaughtRows:
        options = ChatOptions(server.base_url, "asked-for", 0.25, caches_first_turn=True)
        limits = HttpLimits(timeout_s, in_flight, allow_private=True)
        backend = HttpTeacher(OPENAI, options, HeaderKey(KEY), limits)
        try:
            rows = [teacher_row(problem) for problem in problems]
            asker = PlainAsker(backend, SETTINGS.max_attempts)
            return await teach_all(asker, rows, SETTINGS, asyncio.Semaphore(in_flight))
        finally:
            await backend.close()

    return asyncio.run(run())


@dataclass(frozen=True)
class Expected:
    """What a reply to the first call of a chat leads to."""

    reason: str
    permanent: bool
    reply: Reply


def transient(reason: str, reply: Reply) -> Expected:
    return Expected(reason, False, reply)


def permanent(reason: str, reply: Reply) -> Expected:
    return Expected(reason, True, reply)


def choices(value: object) -> Reply:
    return answer({**chat(), "choices": value})


def message(**fields: object) -> Reply:
    return answer(chat(message={"role": "assistant", **fields}))


FAULTS: dict[str, Expected] = {
    "429": transient("rate_limited", answer({"error": {"message": "slow"}}, 429, Retry_After="0")),
    "429 without a wish": transient("rate_limited", answer({}, 429)),
    "429 unreadable wish": transient("rate_limited", answer({}, 429, Retry_After="inf")),
    "408": transient("overloaded", answer({}, 408)),
    "409": transient("overloaded", answer({}, 409)),
    "500": transient("overloaded", answer({}, 500)),
    "503 html": transient("overloaded", Reply(b"<html>", 503, HTML)),
    "529": transient("overloaded", answer({"error": {"message": "overloaded"}}, 529)),
    "reset": transient("connection", Reply(fault="reset")),
    "closed": transient("connection", Reply(fault="close")),
    "truncated body": transient("connection", Reply(GOOD.body, fault="truncate")),
    "bad gzip": transient("connection", Reply(b"no", headers={"Content-Encoding": "gzip"})),
    "200 html": transient("bad_answer", Reply(b"<html>log in</html>", headers=HTML)),
    "200 html as json": transient("bad_answer", Reply(b"<html>log in</html>")),
    "200 error": transient("bad_answer", answer({"error": {"message": "no"}})),
    "200 empty": transient("bad_answer", Reply(b"")),
    "bad json": transient("bad_answer", Reply(b'{"choices": [{"mess')),
    "bad utf-8": transient("bad_answer", Reply(b'{"choices": "\xff"}')),
    "deep json": transient("bad_answer", Reply(b"[" * 100_000)),
    "long number": transient("bad_answer", Reply(b'{"choices":' + b"1" * 5000 + b"}")),
    "a list": transient("bad_answer", answer([1, 2])),
    "null": transient("bad_answer", answer(None)),
    "no choices": transient("bad_answer", choices([])),
    "null choices": transient("bad_answer", choices(None)),
    "choices is a dict": transient("bad_answer", choices({"a": 1})),
    "choices is text": transient("bad_answer", choices("abc")),
    "choices is a number": transient("bad_answer", choices(7)),
    "null choice": transient("bad_answer", choices([None])),
    "empty choice": transient("bad_answer", choices([{}])),
    "null message": transient("bad_answer", answer(chat(message=None))),
    "message is text": transient("bad_answer", answer(chat(message="x"))),
    "content is a list": transient("bad_answer", message(content=[{"type": "text"}])),
    "refusal is a number": transient("bad_answer", message(content="x", refusal=5)),
    "finish is a number": transient("bad_answer", answer(chat(finish_reason=5))),
    "model is a number": transient("bad_answer", answer({**chat(), "model": 5})),
    "lone surrogate": transient("bad_answer", answer(chat("half a \ud83d face"))),
    "content filter": permanent("content_filter", answer(chat("", finish_reason="content_filter"))),
    "refusal": permanent("refusal", message(content=None, refusal="I cannot help with that.")),
    "length": permanent("truncated", answer(chat("cut", finish_reason="length"))),
    "empty text": permanent("empty", answer(chat(" \n"))),
    "null text": permanent("empty", answer(chat(None))),
    "400": permanent("bad_request", answer({"error": {"message": "too long"}}, 400)),
    "413": permanent("bad_request", answer({}, 413)),
    "422 with a surrogate": permanent("bad_request", answer({"error": {"message": "\ud800"}}, 422)),
}
STOPS: dict[str, tuple[str, Reply]] = {
    "401": ("unauthorized", answer({"error": {"message": "bad key"}}, 401)),
    "403": ("unauthorized", answer({}, 403)),
    "404": ("not_found", answer({}, 404)),
    "302": ("redirect", Reply(b"", 302, {"Location": "/v1/elsewhere"})),
}
# Always: the first call and every retry. Once: the first call only. Late: at the refinement.
PLACES = ("always", "once", "late")


@dataclass(frozen=True)
class Outcome:
    """What became of one row."""

    made: tuple[Critique | Refinement, ...]
    failures: tuple[Failure, ...]
    num_calls: int


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Mapping[str, Outcome]]:
    """Every fault in every place, all chats at once beside a good one, and a stored result."""
    scripts: dict[str, list[Reply]] = {"good": []}
    for name, fault in FAULTS.items():
        scripts[f"{name}, always"] = [fault.reply] * 9
        scripts[f"{name}, once"] = [fault.reply]
        scripts[f"{name}, late"] = [GOOD, *[fault.reply] * 9]
    with scripted_teacher(scripts) as server:
        result = taught(server, list(scripts))
        assert result.stop is None
        keys = {f"{name}/0" for name in scripts}
        made = {record.key for record in result.outcomes.records if isinstance(record, Refinement)}
        failed = {failure.key for failure in result.outcomes.failures}
        assert made | failed == keys, "in = ok + failed"
        assert not made & failed
        yield {
            name: Outcome(
                tuple(r for r in result.outcomes.records if r.key == f"{name}/0"),
                tuple(f for f in result.outcomes.failures if f.key == f"{name}/0"),
                len(server.asked(name)),
            )
            for name in scripts
        }


def test_a_good_chat_is_two_calls(outcomes: Mapping[str, Outcome]) -> None:
    outcome = outcomes["good"]
    first, second = outcome.made
    assert isinstance(first, Critique)
    assert isinstance(second, Refinement)
    assert first.text == second.text == "a fine answer"
    assert (first.model, first.num_input_tokens, first.num_cached_tokens) == ("scripted-1", 11, 7)
    assert first.num_output_tokens == 3
    assert outcome.num_calls == 2


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays(name: str, outcomes: Mapping[str, Outcome]) -> None:
    fault, outcome = FAULTS[name], outcomes[f"{name}, always"]
    (failure,) = outcome.failures
    assert (failure.reason, failure.permanent) == (fault.reason, fault.permanent)
    assert failure.stage == "critiques"
    assert failure.detail.strip()
    assert "\n" not in failure.detail
    assert outcome.made == ()
    assert outcome.num_calls == (1 if fault.permanent else SETTINGS.max_attempts)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes(name: str, outcomes: Mapping[str, Outcome]) -> None:
    outcome = outcomes[f"{name}, once"]
    if FAULTS[name].permanent:
        assert [f.reason for f in outcome.failures] == [FAULTS[name].reason]
        assert outcome.num_calls == 1
    else:
        assert [type(record) for record in outcome.made] == [Critique, Refinement]
        assert outcome.failures == ()
        assert outcome.num_calls == 3


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_the_refinement_keeps_the_critique(
    name: str, outcomes: Mapping[str, Outcome]
) -> None:
    fault, outcome = FAULTS[name], outcomes[f"{name}, late"]
    (failure,) = outcome.failures
    assert (failure.reason, failure.permanent) == (fault.reason, fault.permanent)
    assert failure.stage == "refinements"
    assert [type(record) for record in outcome.made] == [Critique]
    assert outcome.num_calls == (2 if fault.permanent else 1 + SETTINGS.max_attempts)


def test_every_outcome_can_be_stored(outcomes: Mapping[str, Outcome], tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    records = [record for o in outcomes.values() for record in (*o.made, *o.failures)]
    commit_shard(store, "stage", records)
    assert len(read_failures(store, "stage")) == sum(bool(o.failures) for o in outcomes.values())


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (0, 0, 0)),
        ("x", (0, 0, 0)),
        ({"prompt_tokens": 5}, (5, 0, 0)),
        ({"prompt_tokens": "x", "completion_tokens": 2.5}, (0, 0, 0)),
        ({"prompt_tokens": 2**40, "completion_tokens": -3}, (0, 0, 0)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, (5, 4, 0)),
    ],
)
def test_an_odd_usage_costs_no_answer(usage: object, counts: tuple[int, int, int]) -> None:
    with scripted_teacher({"q": [answer({**chat(), "usage": usage})]}) as server:
        first, _ = taught(server, ["q"]).outcomes.records
    assert isinstance(first, Critique)
    assert (first.num_input_tokens, first.num_cached_tokens, first.num_output_tokens) == counts


def test_a_hanging_call_ends_at_its_limit() -> None:
    hang = Reply(fault="hang")
    with scripted_teacher({"always": [hang] * 9, "once": [hang]}) as server:
        start = time.monotonic()
        result = taught(server, ["always", "once"], timeout_s=1.0)
        assert time.monotonic() - start < 15
        assert (len(server.asked("always")), len(server.asked("once"))) == (2, 3)
    (failure,) = result.outcomes.failures
    assert (failure.key, failure.reason, failure.permanent) == ("always/0", "timeout", False)
    assert "teacher.timeout_s" in failure.detail
    assert [record.key for record in result.outcomes.records] == ["once/0"] * 2


def test_the_servers_wish_is_waited_for() -> None:
    wish = answer({}, 429, Retry_After="1")
    with scripted_teacher({"q": [wish]}) as server:
        assert len(taught(server, ["q"]).outcomes.records) == 2
        first, second, _ = server.asked("q")
    assert second.at_s - first.at_s >= 1.0


@pytest.mark.parametrize("name", STOPS)
def test_what_no_call_can_survive_stops_the_rest(name: str) -> None:
    reason, reply = STOPS[name]
    with scripted_teacher({"bad": [reply] * 9}) as server:
        result = taught(server, ["good", "bad", "never", "nor this"], in_flight=1)
        assert [len(server.asked(p)) for p in ("good", "bad", "never", "nor this")] == [2, 1, 0, 0]
    assert result.stop is not None
    assert (result.stop.reason, result.stop.stop) == (reason, True)
    assert {record.key for record in result.outcomes.records} == {"good/0"}
    assert result.outcomes.failures == (), "rows not tried are not failures: a resume tries them"


def test_a_redirect_is_not_followed() -> None:
    with (
        scripted_teacher({}) as decoy,
        scripted_teacher({"q": [Reply(b"", 307, {"Location": decoy.base_url})]}) as server,
    ):
        result = taught(server, ["q"])
        assert decoy.requests == []
        assert len(server.requests) == 1
    assert result.stop is not None
    assert result.stop.reason == "redirect"


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody listens there
    with scripted_teacher({}) as server:
        result = taught(server, ["q"])
        first, second = server.requests
    made = result.outcomes.records[0]
    assert isinstance(made, Critique)
    for request, max_tokens in ((first, 33), (second, 44)):
        assert (request.method, request.path) == ("POST", "/v1/chat/completions")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.body["model"] == "asked-for"
        assert request.body["temperature"] == 0.25
        assert request.body["max_tokens"] == max_tokens
    asked, given = teacher_row("q")
    assert first.body["messages"] == build_critique_messages(asked, given)
    assert second.body["messages"] == build_refinement_messages(asked, given, made)


def test_a_gate_holds_the_chats_under_way() -> None:
    under_way = highest = 0

    class Slow:
        async def ask(self, messages: object, max_tokens: int, template: str) -> object:
            nonlocal under_way, highest
            under_way += 1
            highest = max(highest, under_way)
            await asyncio.sleep(0.001)
            under_way -= 1
            return completion()

    async def run() -> TaughtRows:
        rows = [teacher_row(str(i)) for i in range(20)]
        return await teach_all(Slow(), rows, SETTINGS, asyncio.Semaphore(3))  # type: ignore[arg-type]

    assert len(asyncio.run(run()).outcomes.records) == 40
    assert highest == 3


def test_the_address_check_asks_for_models_only() -> None:
    with scripted_teacher({}) as server:
        check_teacher(
            TeacherSettings(base_url=server.base_url, allow_private_address=True, api_key_env="NO")
        )
        assert [(r.method, r.path) for r in server.requests] == [("GET", "/v1/models")]
