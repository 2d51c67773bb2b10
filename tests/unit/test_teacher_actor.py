"""The teacher actor against a real HTTP server: what it counts, commits and keeps."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from cgd_ray.records import Critique, Draft, Prompt, Refinement
from cgd_ray.settings import TeacherSettings
from cgd_ray.shards import read_failures, read_records
from cgd_ray.store import LocalStore
from cgd_ray.teacher.actor import TeacherActor
from cgd_ray.teacher.chain import TeacherRow
from tests.support.records import teacher_row
from tests.support.scripted_teacher import KEY, ScriptedTeacher, answer, chat, scripted_teacher

SETTINGS = TeacherSettings(max_attempts=2)
GOOD = answer(chat())
UNAUTHORIZED = answer({"error": {"message": "bad key"}}, 401)
REFUSAL = answer(
    chat(message={"role": "assistant", "content": None, "refusal": "I cannot help with that."})
)


def table(rows: Sequence[TeacherRow]) -> pa.Table:
    def plain(record: Prompt | Draft | Critique | None) -> dict[str, object] | None:
        return record and {name: getattr(record, name) for name in record.SCHEMA.names}

    names = ("prompt", "draft", "critique")
    return pa.Table.from_pylist(
        [{name: plain(record) for name, record in zip(names, r, strict=True)} for r in rows]
    )


def actor_at(
    server: ScriptedTeacher, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> TeacherActor:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return TeacherActor(SETTINGS, server.base_url, store.root, "stage")


def run_in_turn(
    actor: TeacherActor, *batches: Callable[[], list[TeacherRow]]
) -> list[dict[str, object]]:
    """Give an actor tables one after the other, as a run and its resume would; return counts."""

    async def run() -> list[dict[str, object]]:
        return [(await actor(table(rows()))).to_pylist()[0] for rows in batches]

    return asyncio.run(run())


def test_an_actor_counts_and_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(tmp_path))
    scripts = {"late": [GOOD, *[answer({}, 500)] * 9], "refused": [REFUSAL]}
    with scripted_teacher(scripts) as server:
        actor = actor_at(server, store, monkeypatch)
        counts = run_in_turn(
            actor, lambda: [teacher_row("late"), teacher_row("refused"), teacher_row("good")]
        )
    assert counts == [{"made": 1, "failed": 2, "stop": None}]
    assert list(read_records(store, "stage", Refinement)) == ["good/0"]
    assert list(read_records(store, "stage", Critique)) == ["good/0", "late/0"]
    assert list(read_failures(store, "stage")) == ["late/0", "refused/0"]
    assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {KEY}"}


def test_an_actor_that_must_stop_says_so_and_keeps_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(str(tmp_path))
    with scripted_teacher({"bad": [UNAUTHORIZED] * 9}) as server:
        actor = actor_at(server, store, monkeypatch)
        (_, counts) = run_in_turn(
            actor, lambda: [teacher_row("good")], lambda: [teacher_row("bad")]
        )
    assert str(counts["stop"]).startswith("unauthorized: HTTP 401")
    assert (counts["made"], counts["failed"]) == (0, 0)
    assert list(read_records(store, "stage", Refinement)) == ["good/0"]


@pytest.mark.parametrize("problem", ["a", "b", "c", "d"])  # so that commits sort either way
def test_a_resumed_row_keeps_the_critique_that_was_paid_for(
    problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(str(tmp_path))
    script = [answer(chat("the first critique")), *[answer({}, 500)] * SETTINGS.max_attempts]
    with scripted_teacher({problem: [*script, answer(chat("refined"))]}) as server:
        actor = actor_at(server, store, monkeypatch)
        key = f"{problem}/0"
        run_in_turn(
            actor,
            lambda: [teacher_row(problem)],
            lambda: [teacher_row(problem, read_records(store, "stage", Critique)[key])],
        )
        last = server.requests[-1]
        assert len(server.requests) == len(script) + 1, "the critique was asked for again"
    assert read_records(store, "stage", Critique)[key].text == "the first critique"
    assert read_records(store, "stage", Refinement)[f"{problem}/0"].text == "refined"
    assert last.body["messages"][2] == {"role": "assistant", "content": "the first critique"}
