"""`cgd status` from artefacts that the run's own functions made, on a real store."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from cgd_ray.cli import main
from cgd_ray.lease import Owner, owned, this_process
from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.pipeline.prompts import split_folder
from cgd_ray.pipeline.spending import journal_folder
from cgd_ray.pipeline.status import read_status
from cgd_ray.settings import Settings, load
from cgd_ray.shards import commit_shard, mark_complete
from cgd_ray.teacher.journal import Entry, encode_segment
from cgd_ray.training.metrics import MetricsWriter, StepMetrics
from cgd_ray.watching.status import RunStatus, StageStatus, status_page
from tests.support.records import completion, critique, draft, failure, prompt, refinement

RUN = """
[run]
name = "watched"
root = "{folder}/store"
work_dir = "{folder}/work"
lease_s = 5
[prompts]
train = "reasoning-gym:chain_sum"
num_train = 6
num_test = 2
[teacher]
usd_per_million_input_tokens = 1000
usd_per_million_output_tokens = 1000
"""
PROMPTS = {"train": 6, "test": 2, "failed": {}, "seconds": 1.0}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "run.toml").write_text(RUN.format(folder=tmp_path))
    return load(tmp_path / "run.toml")


@pytest.fixture
def ctx(settings: Settings) -> RunContext:
    return open_context(settings)


def stages(status: RunStatus) -> dict[str, StageStatus]:
    return {stage.name: stage for stage in status.stages}


def make_prompts(ctx: RunContext) -> None:
    rows = [prompt(f"{n} + 1 =", id=f"p{n}") for n in range(6)]
    commit_shard(ctx.store, split_folder(ctx.folders.prompts, "train"), rows)
    mark_complete(ctx.store, ctx.folders.prompts, PROMPTS)


def make_rows(ctx: RunContext) -> None:
    """Four drafts and one that failed, then made it; two taught, one answer not yet committed."""
    drafts = [draft(id=f"p{n}/0", prompt_id=f"p{n}") for n in range(4)]
    commit_shard(ctx.store, ctx.folders.drafts, [*drafts[:3], failure("p3/0"), failure("p4/0")])
    commit_shard(ctx.store, ctx.folders.drafts, [drafts[3]])
    taught = [critique(draft_id="p0/0"), refinement(draft_id="p0/0"), failure("p1/0")]
    commit_shard(ctx.store, ctx.folders.refinements, taught)
    entries = [Entry(f"{n:024d}", {}, completion(num_cached_tokens=0)) for n in range(3)]
    ctx.store.put(f"{journal_folder(ctx)}/0-one.segment", encode_segment(entries))


def test_a_run_that_never_began(settings: Settings, tmp_path: Path) -> None:
    status = read_status(settings)
    assert {stage.state for stage in status.stages} == {"waiting"}
    assert (status.owner, status.changed_s, status.next_verb) == (None, None, "run")
    assert not (tmp_path / "store").exists()


def test_rows_under_way_are_told_from_commits_and_paid_answers(
    settings: Settings, ctx: RunContext
) -> None:
    make_prompts(ctx)
    make_rows(ctx)
    with owned(ctx.store, "runs/watched", 5):
        status = read_status(settings)
    found = stages(status)
    assert (found["prompts"].state, found["prompts"].done) == ("done", 8)
    drafts = found["drafts"]
    assert (drafts.state, drafts.done, drafts.expected, drafts.failed) == ("at work", 4, 6, 1)
    assert drafts.tokens == 4 * 7
    teacher = found["teacher"]
    assert (teacher.state, teacher.done, teacher.expected, teacher.failed) == ("at work", 1, 6, 1)
    assert teacher.tokens == 3 * 15, "what is paid, committed or not"
    assert teacher.usd == pytest.approx(3 * 0.015)
    assert found["curation"].state == "waiting"
    assert status.owner is not None
    assert (status.owner.state, status.owner.process) == ("alive", os.getpid())
    assert status.next_verb is None
    assert 0 <= (status.changed_s or 0) < 30


@pytest.mark.parametrize("state", ["gone", "dead", "silent"])
def test_an_owner_that_is_not_at_work(settings: Settings, ctx: RunContext, state: str) -> None:
    make_prompts(ctx)
    me = this_process()
    owner: Owner = {
        "gone": me,
        "dead": replace(me, started_ticks=me.started_ticks - 1),  # its pid is another process's now
        "silent": replace(me, host="elsewhere", process_table="elsewhere"),
    }[state]
    with owned(ctx.store, "runs/watched", 5, owner):
        files = list((Path(ctx.store.root) / "runs/watched/lease").iterdir())
        kept = {path: path.read_bytes() for path in files}
    if state != "gone":  # as if it had never released it
        for path, data in kept.items():
            path.write_bytes(data)
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 60))
    status = read_status(settings)
    assert status.owner is not None
    assert status.owner.state == state
    assert status.next_verb == "run"
    assert stages(status)["drafts"].state == "waiting"
    page = status_page(status, ["run.toml"])
    assert {"gone": "ended", "dead": "died", "silent": "anyone may take over"}[state] in page


def test_training_shows_the_last_steps_and_the_newest_state(
    settings: Settings, ctx: RunContext
) -> None:
    mark_complete(ctx.store, ctx.folders.examples, EXAMPLES)
    step = StepMetrics(1, 2.5, 1e-4, 0.7, 30, 100, 2.0)
    writer = MetricsWriter(ctx.store, ctx.folders.checkpoint)
    for number in (1, 2, 3):
        writer.add(replace(step, step=number, loss=3.0 - number))
        writer.flush()
    for number in (1, 2):
        folder = f"{ctx.folders.checkpoint}/states/step-{number:08d}-abc"
        ctx.store.put(f"{folder}/part", b"")
        ctx.store.put(f"{folder}/MANIFEST.json", b"{}")
    ctx.store.put(f"{ctx.folders.checkpoint}/states/step-00000003-abc/part", b"")  # not whole
    status = read_status(settings)
    training = status.training
    assert training is not None
    assert (training.step, training.steps, training.loss, training.saved_step) == (3, 12, 0.0, 2)
    assert (training.tokens_per_second, training.target_tokens_per_second) == (50, 15)
    assert stages(status)["training"].done == 3
    assert "step 3 of 12  loss 0.000" in status_page(status, ["run.toml"])


EXAMPLES = {"made": 6, "asked": 6, "failed": {}, "tokens": 600, "packed_batches": 12, "seconds": 1}
FINISHED = {
    "drafts": {"asked": 6, "made": 6, "failed": {}, "tokens": 60, "seconds": 60.0},
    "refinements": {
        "asked": 6,
        "critiqued": 6,
        "refined": 5,
        "failed": {"refusal": 1},
        "input_tokens": 1_000_000,
        "cached_tokens": 0,
        "output_tokens": 234_567,
        "usd": 12.345,
        "seconds": 0.0,
    },
    "curated": {"asked": 5, "kept": 4, "rejected": {"wrong": 1}, "seconds": 1.0},
    "examples": EXAMPLES,
    "checkpoint": {
        "steps": 12,
        "tokens": 600,
        "target_tokens": 60,
        "tokens_per_second": 200.0,
        "seconds": 7200.0,
    },
    "scores": {
        "base": {"accuracy": 0.102},
        "student": {"accuracy": 0.391},
        "in_words": "significantly better (+28.9 points)",
        "tasks": [{"num_problems": 2, "num_samples": 1}],
        "seconds": 3.0,
    },
    "report": {"bytes": 9, "seconds": 0.1},
}


def finish(ctx: RunContext) -> None:
    make_prompts(ctx)
    for key, summary in FINISHED.items():
        mark_complete(ctx.store, getattr(ctx.folders, key), summary)
    writer = MetricsWriter(ctx.store, ctx.folders.checkpoint)
    writer.add(StepMetrics(12, 0.5, 1e-4, 0.7, 30, 100, 2.0))
    writer.flush()


def test_a_finished_run_fits_a_terminal(
    settings: Settings, ctx: RunContext, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    finish(ctx)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert main(["status", str(tmp_path / "run.toml"), "serve.port=9000"]) == 0
    page = capfd.readouterr().out
    table = page.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    assert len(table) == 9
    assert max(map(len, table)) <= 100
    assert "5 of 6" in page
    assert "12.35" in page or "12.34" in page
    assert "base 10.2%, student 39.1%: significantly better (+28.9 points)" in page
    assert f"1: cgd failures {tmp_path}/run.toml serve.port=9000" in page
    assert f"next        cgd serve {tmp_path}/run.toml serve.port=9000" in page
    assert "step 12 of 12  loss 0.500  200 tokens/s, 20 targets/s\n" in page
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert before == after, "it writes nothing"


def test_machines_get_json(
    ctx: RunContext, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    finish(ctx)
    assert main(["status", str(tmp_path / "run.toml"), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["run"] == "watched"
    assert [stage["state"] for stage in told["stages"]] == ["done"] * 8
    assert told["stages"][2]["usd"] == 12.345
    assert told["training"]["step"] == 12
    assert told["next_verb"] == "serve"
    assert 0 <= told["changed_s"] < 30


def test_a_store_of_the_runs_own_server_is_not_made_to_be_read(tmp_path: Path) -> None:
    text = RUN.format(folder=tmp_path).replace(f"{tmp_path}/store", "s3://bucket/runs")
    (tmp_path / "run.toml").write_text(f"{text}\n[local]\ns3_server = true\n")
    status = read_status(load(tmp_path / "run.toml"))
    assert {stage.state for stage in status.stages} == {"waiting"}
    assert status.root == "s3://bucket/runs"
    assert not (tmp_path / "work").exists()


def test_the_owner_is_shown_with_its_machine(settings: Settings, ctx: RunContext) -> None:
    with owned(ctx.store, "runs/watched", 5):
        page = status_page(read_status(settings), ["run.toml"])
    assert f"process {os.getpid()} on {socket.gethostname()}, at work since 20" in page
    assert "it is at work" in page


def test_the_next_command_can_be_pasted_into_a_shell(settings: Settings) -> None:
    page = status_page(read_status(settings), ["run.toml", "prompts.options={a=1, b=2}"])
    assert "next        cgd run run.toml 'prompts.options={a=1, b=2}'" in page
