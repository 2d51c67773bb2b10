"""Drafts, critiques and refinements as Ray Data plans, with an echo in the engine's place."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgd_ray.pipeline.context import open_context
from cgd_ray.pipeline.run import drafts, examples, generate, teach
from cgd_ray.pipeline.stages import finished
from cgd_ray.records import Critique, Draft, Refinement
from cgd_ray.settings import Settings, load
from cgd_ray.shards import read_failures, read_records
from cgd_ray.store import Store, open_store
from cgd_ray.teacher.journal import read_index
from tests.support.batch_server import batch_server
from tests.support.scripted_teacher import KEY

RUN = """
[run]
name = "cluster-test"
root = "{root}"
work_dir = "{work}"
num_cpus = 4

[prompts]
train = "{prompts}"
test = "reasoning-gym:chain_sum"
num_test = 2

[student]
max_model_len = 256

[sampling]
engine = "echo"
max_tokens = 64
rows_per_request = 8

[teacher]
base_url = "{teacher}"
allow_private_address = true
num_actors = 1 # its shards end one after the other, so that a kill falls between two
max_in_flight = {in_flight}

[evaluate]
max_tokens = 64
"""

SOLVABLE = [{"prompt": f"{n} + {n + 1} - 3 =", "answer": str(2 * n - 2)} for n in range(60)]
UNSOLVABLE = [{"prompt": f"Who was queen number {n}?", "answer": "?"} for n in range(2)]
TOO_LONG = [{"prompt": "1 + 2 = " + "and so on " * 300, "answer": "3"}]
NEEDED = 2 * len(SOLVABLE) + len(UNSOLVABLE)  # calls: a refusal takes one
IN_FLIGHT = 4
UNUSABLE = [{"prompt": "", "answer": "0"}, {"prompt": 7, "answer": "7"}]


@pytest.fixture
def run_file(tmp_path: Path, s3: str, slow_tutor: tuple[str, Path]) -> Path:
    rows = SOLVABLE + UNSOLVABLE + TOO_LONG + UNUSABLE
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "run.toml"
    root = f"s3://tests/{tmp_path.name}"
    path.write_text(
        RUN.format(
            in_flight=IN_FLIGHT,
            root=root,
            work=tmp_path / "work",
            prompts=prompts,
            teacher=slow_tutor[0],
        )
    )
    return path


def assert_every_row_is_accounted_for(settings: Settings, reason: str = "refusal") -> None:
    store, folders = open_store(settings.run.root), open_context(settings).folders
    drafts = read_records(store, folders.drafts, Draft)
    refinements = read_records(store, folders.refinements, Refinement)
    critiques = read_records(store, folders.refinements, Critique)
    assert len(drafts) == len(SOLVABLE) + len(UNSOLVABLE)
    assert [f.reason for f in read_failures(store, folders.drafts, drafts).values()] == ["too_long"]
    assert len(refinements) == len(critiques) == len(SOLVABLE)
    refused = read_failures(store, folders.refinements, refinements).values()
    assert [(f.stage, f.reason) for f in refused] == [("critiques", reason)] * len(UNSOLVABLE)
    assert {*refinements} | {f.row_id for f in refused} == {*drafts}


def assert_every_paid_answer_is_kept(settings: Settings, tutor, but: int = 0) -> None:
    kept = len(read_index(open_store(settings.run.root)).answers)
    assert calls_of(tutor) - but <= kept <= calls_of(tutor)


def wait_for_commit(store: Store, folder: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not any(store.list(f"{folder}/commits/")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def calls_of(tutor: tuple[str, Path]) -> int:
    """Return the requests that the teacher has answered: a line with their usage each."""
    log = tutor[1].read_text()
    assert "Traceback" not in log
    return log.count("{'prompt_tokens'")


def test_a_killed_run_goes_on_where_it_was(run_file, slow_tutor):
    settings = load(run_file)
    store, folders = open_store(settings.run.root), open_context(settings).folders
    command = [sys.executable, "-m", "cgd_ray.cli", "generate", str(run_file)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for_commit(store, folders.refinements, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(read_records(store, folders.refinements, Refinement))
    assert 0 < kept < len(SOLVABLE)

    generate(settings)
    assert_every_row_is_accounted_for(settings)
    # Calls under way at the kill are paid twice, as are those that the killed driver's worker
    # still made while the next run read the journal.
    assert NEEDED <= calls_of(slow_tutor) <= NEEDED + 2 * IN_FLIGHT
    assert_every_paid_answer_is_kept(settings, slow_tutor, but=2 * IN_FLIGHT)

    before = calls_of(slow_tutor)
    generate(settings)
    assert calls_of(slow_tutor) == before

    examples(settings)
    ctx = open_context(settings)
    curated, made = finished(ctx, "curated"), finished(ctx, "examples")
    assert curated is not None and made is not None
    assert curated["asked"] == curated["kept"] == len(SOLVABLE)
    assert made["made"] == made["asked"] == len(SOLVABLE)


def test_ctrl_c_keeps_every_paid_answer_and_failed_rows_can_be_tried_again(run_file, slow_tutor):
    settings = load(run_file)
    store, folders = open_store(settings.run.root), open_context(settings).folders
    command = [sys.executable, "-m", "cgd_ray.cli", "generate", str(run_file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for_commit(store, folders.refinements, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "the same command goes on from here" in said
    paid = calls_of(slow_tutor)
    assert 0 < paid < NEEDED
    assert_every_paid_answer_is_kept(settings, slow_tutor)

    generate(settings)
    assert_every_row_is_accounted_for(settings)
    assert calls_of(slow_tutor) == NEEDED

    listed = subprocess.run(
        [*command[:3], "failures", str(run_file)], capture_output=True, text=True, timeout=120
    )
    assert listed.stdout.count(" refusal ") == 1 + len(UNSOLVABLE)
    assert listed.stdout.count(" too_long ") == 2
    generate(settings, retry_failed=True)
    assert_every_row_is_accounted_for(settings)
    assert calls_of(slow_tutor) == NEEDED + len(UNSOLVABLE)
    again = open_context(settings).folders
    assert (again.refinements, again.curated != folders.curated) == (folders.refinements, True)


def test_the_stages_one_at_a_time_make_what_the_stream_makes(run_file):
    settings = load(run_file)
    drafts(settings)
    store, folders = open_store(settings.run.root), open_context(settings).folders
    assert not any(store.list(folders.refinements))
    teach(settings)
    assert_every_row_is_accounted_for(settings)
    ctx = open_context(settings)
    assert (finished(ctx, "drafts"), finished(ctx, "refinements")) != (None, None)


def test_a_refused_key_stops_the_stage_and_keeps_what_was_made(tmp_path, s3):
    port = tmp_path / "port"
    key = tmp_path / "key"
    key.write_text("right")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in SOLVABLE[:20]))
    from cgd_ray.processes import child, wait_until

    command = [sys.executable, "-m", "cgd_ray.tutor", "--port-file", str(port)]
    with child([*command, "--api-key-file", str(key)], tmp_path / "tutor.log") as process:
        wait_until(port.exists, process, "the tutor", tmp_path / "tutor.log", 60)
        path = tmp_path / "run.toml"
        teacher = f"http://127.0.0.1:{port.read_text().strip()}/v1"
        root = f"s3://tests/{tmp_path.name}"
        path.write_text(
            RUN.format(
                in_flight=IN_FLIGHT,
                root=root,
                work=tmp_path / "work",
                prompts=prompts,
                teacher=teacher,
            )
        )
        wrong = tmp_path / "wrong"
        wrong.write_text("wrong")
        line = run_cli("generate", path, f"teacher.api_key_file={wrong}")
        assert "answers 401 to the key from" in line and "teacher.api_key_file" in line
        assert "Traceback" not in line
        generate(load(path, [f"teacher.api_key_file={key}"]))


def run_cli(*arguments: object) -> str:
    """Run a verb that must be refused; return the last line of what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "cgd_ray.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["train.learnig_rate=1e-5"], "did you mean train.learning_rate"),
        (["prompts.columns.prompt=question"], "no column 'question'"),
        (["prompts.train=nowhere/*.jsonl"], "matches no prompt file"),
        (["run.root=s3://nowhere/x"], "bucket 'nowhere'"),
        (["teacher.base_url=http://127.0.0.1:9/v1"], "cannot be reached"),
        (["teacher.allow_private_address=false"], "teacher.allow_private_address=true"),
        (["teacher.base_url=http://169.254.169.254/v1"], "never a teacher"),
        (["student.model=./nowhere"], "no config.json"),
    ],
)
def test_bad_input_is_one_line_before_any_work(run_file, overrides, says):
    start = time.monotonic()
    assert says in run_cli("generate", run_file, *overrides)
    assert time.monotonic() - start < 60


def batch_answer(body: dict[str, object]) -> tuple[str, str]:
    problem = str(body["messages"])
    return ("bad_request", "") if "queen" in problem else ("ok", "Redo it. \\boxed{1}")


@pytest.mark.parametrize(("backend", "path"), [("openai", "/v1"), ("anthropic", "")])
def test_batches_answer_a_whole_run_and_a_second_one_asks_nothing(
    run_file, backend, path, monkeypatch
):
    monkeypatch.setenv("BATCH_KEY", KEY)
    with batch_server(batch_answer, auto=True) as server:
        overrides = [
            f"teacher.backend={backend}",
            f"teacher.base_url={server.root}{path}",
            "teacher.mode=batch",
            "teacher.api_key_env=BATCH_KEY",
        ]
        settings = load(run_file, overrides)
        generate(settings)
        assert_every_row_is_accounted_for(settings, "bad_request")
        billed = server.billed.total()
        assert billed == 2 * len(SOLVABLE)
        generate(settings, retry_failed=True)
        assert server.billed.total() == billed
