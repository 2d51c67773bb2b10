"""`teacher.mode = "batch"` over real HTTP: each answer is paid once, whatever is killed when."""

import asyncio
import io
import json
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cgd_ray.errors import UserError
from cgd_ray.identity import stage_folders
from cgd_ray.keys import key_index, key_set
from cgd_ray.pipeline.batches import BatchLimits, fill_journal
from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.rows import DraftRows, DraftSource
from cgd_ray.pipeline.spending import journal_folder, spent_usd
from cgd_ray.pipeline.units import draft_units
from cgd_ray.progress import Progress
from cgd_ray.records import Draft, Outcomes, Prompt
from cgd_ray.settings import TeacherSettings, load
from cgd_ray.shards import commit_shard, committed_files, read_failures
from cgd_ray.store import LocalStore
from cgd_ray.teacher.chain import teach_all
from cgd_ray.teacher.echo import EchoTeacher
from cgd_ray.teacher.governor import Governor, Grant, Report, limits_of
from cgd_ray.teacher.journal import Journal, read_index, read_usage
from cgd_ray.teacher.journaled import JournaledTeacher
from cgd_ray.teacher.permits import Permits
from cgd_ray.teacher.rows import read_teacher_rows
from tests.support.batch_server import Answer, BatchServer, batch_server
from tests.support.records import draft, prompt
from tests.support.scripted_teacher import KEY

REPO = Path(__file__).parents[2]
BACKENDS = ("openai", "anthropic")
FAST = BatchLimits(max_requests=4, first_pause_s=0.001, longest_pause_s=0.01)
NUM_ROWS = 10
CREATE = {"openai": "POST /v1/batches", "anthropic": "POST /v1/messages/batches"}


class Killed(BaseException):
    """The process is gone."""


class MortalStore(LocalStore):
    """A store whose process dies at one write, before or after it."""

    def __init__(self, root: str, part: str, number: int, *, after: bool) -> None:
        super().__init__(root)
        self._part, self._left, self._after = part, number, after

    def put(self, key: str, data: bytes) -> None:
        self._left -= self._part in key
        if not self._left and not self._after:
            raise Killed
        super().put(key, data)
        if not self._left:
            raise Killed


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def good(body: dict[str, Any]) -> Answer:
    problem = re.search(r"problem (\d+)", json.dumps(body))
    assert problem is not None
    return "ok", f"text of {problem[1]} after {len(body['messages'])}"


def troubled(kind: str, *numbers: int) -> Callable[[dict[str, Any]], Answer]:
    """Return answers that are errors for some problems."""

    def answer(body: dict[str, Any]) -> Answer:
        made = good(body)
        return (kind, "no") if int(made[1].split()[2]) in numbers else made

    return answer


def context(tmp_path: Path, server: BatchServer, backend: str, **teacher: object) -> RunContext:
    suffix = "/v1" if backend == "openai" else ""
    values = {
        "backend": backend,
        "mode": "batch",
        "model": "m",
        "base_url": f"{server.root}{suffix}",
        "allow_private_address": True,
        **teacher,
    }
    base = load(REPO / "jobs/runs/demo.toml", (f"run.root={tmp_path}/store", "local.tutor=false"))
    settings = base.model_copy(update={"teacher": TeacherSettings.model_validate(values)})
    store = LocalStore(str(tmp_path / "store"))
    folders = stage_folders(settings, ())
    ctx = RunContext(settings, store, folders, tmp_path, Progress(io.StringIO()))
    if not list(store.list(f"{folders.drafts}/commits/")):
        ids = [f"p{i}" for i in range(NUM_ROWS)]
        commit_shard(
            store, f"{folders.prompts}/train", [prompt(f"problem {i[1:]}", id=i) for i in ids]
        )
        commit_shard(store, folders.drafts, [draft(id=f"{i}/0", prompt_id=i) for i in ids])
    return ctx


def source_of(ctx: RunContext) -> DraftSource:
    files = list(committed_files(ctx.store, f"{ctx.folders.prompts}/train", Prompt))
    failed = read_failures(ctx.store, ctx.folders.refinements)
    done = key_set(key for key, failure in failed.items() if failure.permanent)
    drafts = committed_files(ctx.store, ctx.folders.drafts, Draft)
    units = tuple(draft_units(drafts, done, 3))
    index = key_index((key, i) for i, file in enumerate(files) for key in file.ids)
    return DraftSource(ctx.store.root, units, done, tuple(f.key for f in files), index)


def fill(ctx: RunContext, limits: BatchLimits = FAST) -> None:
    with ctx.progress.stage("teacher", NUM_ROWS, "rows") as line:
        base_url = ctx.settings.teacher.base_url
        assert base_url is not None
        fill_journal(ctx, base_url, source_of(ctx), line, limits)


def taught(ctx: RunContext) -> Outcomes:
    """Return what the plan after the batches makes: its teacher must not be asked a thing."""

    async def run() -> Outcomes:
        t, source = ctx.settings.teacher, source_of(ctx)
        governor = Governor(limits_of(t, 0.0))

        async def exchange(report: Report) -> Grant:
            return governor.exchange(report)

        journal = Journal(ctx.store, journal_folder(ctx), read_index(ctx.store))
        asker = JournaledTeacher(EchoTeacher("never"), Permits(exchange, 1, None), journal, t)
        numbers = {"id": list(range(len(source.units)))}
        rows = read_teacher_rows(DraftRows(source)(pa.table(numbers)))
        return (await teach_all(asker, rows, t, asyncio.Semaphore(9))).outcomes

    return asyncio.run(run())


def texts(outcomes: Outcomes) -> list[str]:
    return sorted(f"{r.key} {getattr(r, 'text')}" for r in outcomes.records)  # noqa: B009


@pytest.fixture
def whole(backend: str) -> list[str]:
    """The texts of a run in which nothing goes wrong."""
    first, second = (1, 3) if backend == "anthropic" else (2, 4)
    ids = range(NUM_ROWS)
    return sorted(f"p{i}/0 text of {i} after {n}" for i in ids for n in (first, second))


def paid_once(server: BatchServer, number: int) -> bool:
    return len(server.billed) == number and set(server.billed.values()) <= {1}


def test_two_rounds_of_batches_teach_every_row(
    tmp_path: Path, backend: str, whole: list[str]
) -> None:
    with batch_server(good) as server:
        ctx = context(tmp_path, server, backend)
        fill(ctx)
        assert [len(b.requests) for b in server.batches.values()] == [4, 4, 2, 4, 4, 2]
        assert texts(taught(ctx)) == whole
        assert paid_once(server, 2 * NUM_ROWS)
        assert read_usage(ctx.store, journal_folder(ctx)).num_calls == 2 * NUM_ROWS
        num_calls = len(server.calls)
        fill(ctx)
        assert len(server.calls) == num_calls


def test_one_turn_is_one_round(tmp_path: Path, backend: str) -> None:
    def both(body: dict[str, Any]) -> Answer:
        text = good(body)[1]
        return "ok", f"<critique>{text}</critique><refinement>{text}</refinement>"

    with batch_server(both) as server:
        ctx = context(tmp_path, server, backend, turns=1)
        fill(ctx)
        assert len(server.batches) == 3
        assert len(taught(ctx).records) == 2 * NUM_ROWS
        assert paid_once(server, NUM_ROWS)


KILLS = [
    ("plan.json", 1, True),  # recorded, not handed in
    ("ids.json", 1, False),  # handed in, not recorded
    ("ids.json", 2, True),  # under way
    (".segment", 2, False),  # some answers are in the journal
    ("done.json", 2, False),  # all are, and the batch is not over
    ("done.json", 3, True),  # between the rounds
    ("ids.json", 5, False),  # in the second round
]


@pytest.mark.parametrize(("part", "number", "after"), KILLS)
def test_a_killed_run_pays_no_answer_twice(
    tmp_path: Path, backend: str, whole: list[str], part: str, number: int, *, after: bool
) -> None:
    with batch_server(good) as server:
        ctx = context(tmp_path, server, backend)
        store = MortalStore(ctx.store.root, part, number, after=after)
        with pytest.raises(Killed):
            fill(replace(ctx, store=store))
        fill(ctx)
        assert texts(taught(ctx)) == whole
        assert paid_once(server, 2 * NUM_ROWS)
        assert read_usage(ctx.store, journal_folder(ctx)).num_calls == 2 * NUM_ROWS


@pytest.mark.parametrize("fault", ["429", "lost", "cut"])
def test_a_creation_that_fails_is_repeated_only_if_it_did_not_happen(
    tmp_path: Path, backend: str, whole: list[str], fault: str
) -> None:
    with batch_server(good) as server:
        server.faults[CREATE[backend]] = deque([fault, fault])
        ctx = context(tmp_path, server, backend)
        fill(ctx)
        assert texts(taught(ctx)) == whole
        assert len(server.batches) == 6
        assert paid_once(server, 2 * NUM_ROWS)


def test_single_errors_are_failures_as_in_a_chat(tmp_path: Path, backend: str) -> None:
    with batch_server(troubled("bad_request", 3)) as server:
        ctx = context(tmp_path, server, backend)
        fill(ctx)
        failed = read_failures(ctx.store, ctx.folders.refinements)
        assert list(failed) == ["p3/0"]
        assert (failed["p3/0"].reason, failed["p3/0"].permanent) == ("bad_request", True)
        assert len(taught(ctx).records) == 2 * (NUM_ROWS - 1)


@pytest.mark.parametrize("kind", ["overloaded", "expired"])
def test_a_question_without_an_answer_is_asked_once_a_run(
    tmp_path: Path, backend: str, whole: list[str], kind: str
) -> None:
    answers = [troubled(kind, 2, 7)]
    with batch_server(lambda body: answers[0](body)) as server:
        ctx = context(tmp_path, server, backend)
        fill(ctx)
        made = taught(ctx)
        assert {f.row_id for f in made.failures} == {"p2/0", "p7/0"}
        assert {(f.reason, f.permanent) for f in made.failures} == {("not_answered", False)}
        answers[0] = good
        fill(ctx)
        assert texts(taught(ctx)) == whole
        assert paid_once(server, 2 * NUM_ROWS)


def test_retry_failed_asks_again_what_was_unusable_and_that_alone(
    tmp_path: Path, backend: str, whole: list[str]
) -> None:
    answers = [troubled("ok", 5)]
    with batch_server(lambda body: ("ok", "") if answers[0](body)[1] == "no" else good(body)) as s:
        ctx = context(tmp_path, s, backend)
        fill(ctx)
        assert [f.reason for f in taught(ctx).failures] == ["empty"]
        answers[0] = good
        fill(ctx)
        assert [f.reason for f in taught(ctx).failures] == ["empty"]
        fill(replace(ctx, retry_failed=True))
        assert texts(taught(ctx)) == whole
        assert s.billed.total() == 2 * NUM_ROWS + 1


@pytest.mark.parametrize("status", ["expired", "failed"])
def test_a_batch_that_comes_to_nothing_leaves_its_questions_open(
    tmp_path: Path, whole: list[str], status: str, backend: str
) -> None:
    if backend == "anthropic" and status == "failed":
        pytest.skip("Anthropic refuses at the creation")
    with batch_server(good) as server:
        ctx = context(tmp_path, server, backend)
        server.status = status
        fill(ctx)
        assert not server.billed.total()
        assert {f.reason for f in taught(ctx).failures} == {"not_answered"}
        server.status = "ended"
        fill(ctx)
        assert texts(taught(ctx)) == whole


def test_another_batch_of_the_same_size_is_not_taken_for_ours(tmp_path: Path) -> None:
    with batch_server(good) as server:
        ctx = context(tmp_path, server, "anthropic")
        store = MortalStore(ctx.store.root, "plan.json", 1, after=True)
        with pytest.raises(Killed):
            fill(replace(ctx, store=store))
        foreign = {f"foreign-{i}": {"messages": ["problem 0"]} for i in range(4)}
        server._new(foreign, None)
        fill(ctx)
        assert len(taught(ctx).records) == 2 * NUM_ROWS


def test_money_bounds_the_batches_under_way(tmp_path: Path) -> None:
    price: dict[str, Any] = {
        "usd_per_million_input_tokens": 1.0,
        "usd_per_million_output_tokens": 10.0,
        "critique_max_tokens": 100,
        "refinement_max_tokens": 100,
    }
    with batch_server(good) as server:
        # An answer costs 0.0002 dollars here, and a request at most about 0.002.
        ctx = context(tmp_path, server, "openai", max_usd=0.006, **price)
        fill(ctx)
        assert max(len(b.requests) for b in server.batches.values()) <= 3
        assert spent_usd(ctx) == pytest.approx(2 * NUM_ROWS * 0.0002)
        assert len(taught(ctx).records) == 2 * NUM_ROWS
        ctx = context(tmp_path / "poor", server, "openai", max_usd=0.004, **price)
        with pytest.raises(UserError, match=r"stopped \(budget\).*teacher.max_usd=\$0.004"):
            fill(ctx)
        assert spent_usd(ctx) <= 0.004
        fill(context(tmp_path / "poor", server, "openai", max_usd=0.01, **price))
        assert len(taught(ctx).records) == 2 * NUM_ROWS


def test_ctrl_c_leaves_the_batches_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with batch_server(good, auto=False) as server:
        ctx = context(tmp_path, server, "openai")

        def interrupt() -> None:
            while sum(call.startswith("GET /v1/batches/") for call in list(server.calls)) < 3:
                threading.Event().wait(0.005)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            fill(ctx)
        assert len(server.batches) == 3
        server.finish()
        server._auto = True
        fill(ctx)
        assert len(taught(ctx).records) == 2 * NUM_ROWS
        assert paid_once(server, 2 * NUM_ROWS)
    shown = capsys.readouterr()
    assert "3 batches go on at the provider" in shown.out + shown.err


def test_an_address_without_batches_ends_the_run_in_one_line(tmp_path: Path) -> None:
    with batch_server(good) as server:
        ctx = context(tmp_path, server, "openai", base_url=f"{server.root}/v2")
        with pytest.raises(UserError, match=r"stopped \(not_found\)"):
            fill(ctx)


@pytest.mark.parametrize("backend", ["bedrock", "echo"])
def test_the_other_backends_have_no_batches(backend: str) -> None:
    with pytest.raises(ValueError, match=r"teacher\.mode=batch needs teacher\.backend=openai or"):
        TeacherSettings.model_validate({"backend": backend, "mode": "batch"})
