"""The teacher actor against a real HTTP server: what it counts, commits, keeps and pays once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cgd_ray.records import Critique, Refinement
from cgd_ray.settings import TeacherSettings
from cgd_ray.shards import read_failures, read_records
from cgd_ray.store import LocalStore
from cgd_ray.teacher.actor import TeacherActor, TeacherPost
from cgd_ray.teacher.governor import Governor, Grant, Report, Stop, limits_of
from cgd_ray.teacher.journal import read_index, read_usage
from cgd_ray.teacher.rows import TeacherRow, teacher_rows
from tests.support.records import teacher_row
from tests.support.scripted_teacher import KEY, ScriptedTeacher, answer, chat, scripted_teacher

SETTINGS = TeacherSettings(max_attempts=2)
GOOD = answer(chat())
UNAUTHORIZED = answer({"error": {"message": "bad key"}}, 401)
REFUSAL = answer(
    chat(message={"role": "assistant", "content": None, "refusal": "I cannot help with that."})
)


@dataclass
class Office:
    """A store and a governor in place of a cluster's, and what the actors there have told."""

    store: LocalStore
    base_url: str
    settings: TeacherSettings = SETTINGS
    made: int = 0
    failed: int = 0
    governor: Governor = field(default_factory=lambda: Governor(limits_of(SETTINGS, 0.0)))

    def teach(self, *rows: TeacherRow, reuse_refusals: bool = True) -> None:
        """Give rows to a new actor, as every run of the command does."""
        post = TeacherPost(
            base_url=self.base_url,
            root=self.store.root,
            folder="stage",
            journal_folder="journal/run",
            index=read_index(self.store),
            exchange=self.exchange,
            count=self.count,
            reuse_refusals=reuse_refusals,
        )
        asyncio.run(self._run(TeacherActor(self.settings, post), rows))

    async def exchange(self, report: Report) -> Grant:
        return self.governor.exchange(report)

    def count(self, made: int, failed: int) -> None:
        self.made += made
        self.failed += failed

    @property
    def refined(self) -> list[str]:
        return list(read_records(self.store, "stage", Refinement))

    async def _run(self, actor: TeacherActor, rows: Sequence[TeacherRow]) -> None:
        prompts, drafts = zip(*rows, strict=True)
        await actor(teacher_rows(prompts, drafts))
        await actor.close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return LocalStore(str(tmp_path))


def office(store: LocalStore, server: ScriptedTeacher) -> Office:
    return Office(store, server.base_url)


def test_an_actor_counts_and_commits(store: LocalStore) -> None:
    scripts = {"late": [GOOD, *[answer({}, 500)] * 9], "refused": [REFUSAL]}
    with scripted_teacher(scripts) as server:
        here = office(store, server)
        here.teach(teacher_row("late"), teacher_row("refused"), teacher_row("good"))
    assert (here.made, here.failed) == (1, 2)
    assert here.refined == ["good/0"]
    assert list(read_records(store, "stage", Critique)) == ["good/0", "late/0"]
    assert list(read_failures(store, "stage")) == ["late/0", "refused/0"]
    assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {KEY}"}


def test_a_refused_key_stops_every_actor_and_keeps_what_was_made(store: LocalStore) -> None:
    with scripted_teacher({"bad": [UNAUTHORIZED] * 9}) as server:
        here = office(store, server)
        here.teach(teacher_row("good"))
        here.teach(teacher_row("bad"))
        asked = len(server.requests)
        here.teach(teacher_row("later"))
        assert len(server.requests) == asked
    stop = here.governor.usage().stop
    assert stop is not None
    assert stop.reason == "breaker"
    assert stop.detail.startswith("unauthorized: HTTP 401")
    assert (here.made, here.failed) == (1, 0)
    assert here.refined == ["good/0"]


def test_a_resumed_row_keeps_the_critique_that_was_paid_for(store: LocalStore) -> None:
    script = [answer(chat("the first critique")), *[answer({}, 500)] * SETTINGS.max_attempts]
    with scripted_teacher({"a": [*script, answer(chat("refined"))]}) as server:
        here = office(store, server)
        here.teach(teacher_row("a"))
        here.teach(teacher_row("a"))
        assert len(server.requests) == len(script) + 1, "the critique was asked for again"
        last = server.requests[-1]
    assert read_records(store, "stage", Critique)["a/0"].text == "the first critique"
    assert read_records(store, "stage", Refinement)["a/0"].text == "refined"
    assert last.body["messages"][2] == {"role": "assistant", "content": "the first critique"}


def test_what_was_asked_once_is_never_paid_again(store: LocalStore) -> None:
    with scripted_teacher({}) as server:
        here = office(store, server)
        here.teach(*(teacher_row(str(i)) for i in range(5)))
        asked = len(server.requests)
        here.teach(*(teacher_row(str(i)) for i in range(6)))
        assert (asked, len(server.requests)) == (10, 12)
        other = Office(store, server.base_url, TeacherSettings(model="another"))
        other.teach(teacher_row("0"))
        assert len(server.requests) == 14
    assert read_usage(store, "journal/run").num_calls == 14


def test_drafts_that_are_the_same_are_asked_about_once(store: LocalStore) -> None:
    prompt, draft = teacher_row("a")
    twin = draft.__class__("a/1", "a", draft.text, draft.finish_reason, draft.num_tokens, 2)
    with scripted_teacher({}) as server:
        here = office(store, server)
        here.teach((prompt, draft), (prompt, twin))
        assert len(server.requests) == 2
    assert here.refined == ["a/0", "a/1"]


def test_a_refusal_is_asked_again_only_on_request(store: LocalStore) -> None:
    with scripted_teacher({"a": [REFUSAL, GOOD, GOOD]}) as server:
        here = office(store, server)
        here.teach(teacher_row("a"))
        here.teach(teacher_row("a"))
        assert (len(server.requests), here.refined) == (1, [])
        here.teach(teacher_row("a"), reuse_refusals=False)
        assert (len(server.requests), here.refined) == (3, ["a/0"])


def test_money_that_is_spent_stops_before_the_cap(store: LocalStore) -> None:
    cap = 0.02
    prices = {"usd_per_million_input_tokens": 10.0, "usd_per_million_output_tokens": 100.0}
    settings = TeacherSettings(max_usd=cap, critique_max_tokens=20, **prices)
    with scripted_teacher({}) as server:
        here = Office(store, server.base_url, settings)
        here.governor = Governor(limits_of(settings, 0.0))
        here.teach(*(teacher_row(f"{i}") for i in range(200)))
        used = read_usage(store, "journal/run")
        spent = (used.num_input_tokens * 10.0 + used.num_output_tokens * 100.0) / 1e6
    stop = here.governor.usage().stop
    assert isinstance(stop, Stop)
    assert stop.reason == "budget"
    assert "teacher.max_usd" in stop.detail
    assert 0 < spent <= cap
    assert used.num_calls == len(server.requests) < 400
