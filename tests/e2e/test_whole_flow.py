"""The whole flow, small and real: S3 server, vLLM, tutor, Ray Train with ZeRO-3, Serve, scores."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from cgd_ray.local_servers import s3_server
from cgd_ray.pipeline.context import open_context
from cgd_ray.processes import free_port
from cgd_ray.settings import Settings, load
from cgd_ray.store import open_store
from cgd_ray.study.results import StudyResult, from_json
from cgd_ray.training.metrics import read_metrics

REPO = Path(__file__).resolve().parents[2]
NUM_TRAIN, NUM_TEST, STEPS = 16, 8, 4
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The demo's settings, made small; the S3 server is ours, so that we can look into it."""
    work = tmp_path_factory.mktemp("work")
    with s3_server(work / "s3", work / "s3.log", "s3://e2e/runs"):
        yield [
            f"run.work_dir={work}",
            "run.root=s3://e2e/runs",
            "local.s3_server=false",
            f"prompts.num_train={NUM_TRAIN}",
            f"prompts.num_test={NUM_TEST}",
            "sampling.max_tokens=32",
            "sampling.rows_per_request=8",
            "packing.sequence_length=512",
            "train.num_workers=2",
            "train.zero_stage=3",
            "train.batches_per_step=2",
            f"train.max_steps={STEPS}",
            "train.num_epochs=4",
            "train.checkpoint_every_steps=2",
            "evaluate.max_tokens=32",
            f"serve.port={free_port()}",
        ]


@pytest.fixture(scope="module")
def settings(overrides: list[str]) -> Settings:
    return load(REPO / "jobs/runs/demo.toml", overrides)


def start(verb: str, overrides: list[str], log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cgd_ray.cli", verb, "jobs/runs/demo.toml", *overrides]
    output = log.open("w")
    return subprocess.Popen(command, cwd=REPO, stdout=output, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def finished(overrides: list[str], settings: Settings) -> tuple[Path, str]:
    """A run that was killed in mid-training, and then run again; its folder and its output."""
    work = Path(settings.run.work_dir)
    store, folders = open_store(settings.run.root), open_context(settings).folders
    first = start("run", overrides, work / "first.log")
    deadline = time.monotonic() + 540
    while not read_metrics(store, folders.checkpoint):
        assert first.poll() is None, (work / "first.log").read_text()[-3000:]
        assert time.monotonic() < deadline, (work / "first.log").read_text()[-3000:]
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = start("run", overrides, work / "second.log")
    assert second.wait(540) == 0, (work / "second.log").read_text()[-3000:]
    return work / settings.run.name, (work / "second.log").read_text()


def test_the_killed_run_is_finished_by_the_same_command(finished, settings):
    folder, output = finished
    for stage in ("prompts", "drafts", "teacher", "curation", "examples"):
        assert f"{stage:<12} skipped" in output
    summary = json.loads((folder / "summary.json").read_text())
    rows = summary["rows"]
    assert rows["prompts"] == NUM_TRAIN
    lost = sum(rows["failed"].values()) + sum(rows["rejected"].values())
    assert rows["kept"] + lost == NUM_TRAIN
    assert rows["kept"] > 0
    assert {"drafts", "teacher", "training", "evaluation"} <= summary["seconds"].keys()
    evaluation = summary["evaluation"]
    for model in ("base", "student"):
        m = evaluation[model]
        assert 0 <= m["low"] <= m["accuracy"] <= m["high"] <= 1
    assert {"mean", "low", "high", "p"} == evaluation["difference"].keys()
    steps = read_metrics(open_store(settings.run.root), open_context(settings).folders.checkpoint)
    assert [m.step for m in steps] == list(range(1, STEPS + 1))


def test_the_output_says_where_everything_is(finished, settings):
    folder, output = finished
    assert f"report      {folder / 'report.html'}" in output
    assert "serve it    cgd serve jobs/runs/demo.toml" in output
    checkpoint = Path(output.split("checkpoint  ")[-1].splitlines()[0])
    assert (checkpoint / "model.safetensors").stat().st_size > 200e6
    card = (checkpoint / "README.md").read_bytes()
    key = f"{open_context(settings).folders.checkpoint}/model/README.md"
    assert card == open_store(settings.run.root).get(key)
    assert b"| student | " in card, "with its scores"
    assert "Traceback" not in output
    page = (folder / "report.html").read_text()
    assert "Content-Security-Policy" in page and str(NUM_TEST) in page


def test_the_same_run_again_does_nothing_and_says_so(finished, overrides, settings):
    begin = time.monotonic()
    log = Path(settings.run.work_dir) / "third.log"
    assert start("run", overrides, log).wait(60) == 0
    assert time.monotonic() - begin < 30
    lines = log.read_text().splitlines()
    assert sum(" skipped: " in line for line in lines) == 8


# Before the server starts: it and a training are more than a small machine holds.
STUDY = """
name = "small"
run = "{run}"
arms = ["base", "as_it_is", "distilled"]
reference = "as_it_is"
seeds = [1]
match = ["examples"]
overrides = {overrides}

[own_arms]
as_it_is = []
distilled = ["examples.objective=distilled_sft", "examples.prompt_only_share=0"]
"""


@pytest.fixture(scope="module")
def study(finished, overrides, settings) -> tuple[StudyResult, str]:
    """A study on the finished run: one of its two trainings is there already; and its output."""
    work = Path(settings.run.work_dir)
    file, log = work / "study.toml", work / "study.log"
    run = REPO / "jobs/runs/demo.toml"
    file.write_text(STUDY.format(run=run, overrides=json.dumps(overrides)))
    with log.open("w") as output:
        command = [sys.executable, "-m", "cgd_ray.cli", "study", str(file)]
        done = subprocess.run(command, cwd=REPO, stdout=output, stderr=output, timeout=540)
    assert done.returncode == 0, log.read_text()[-3000:]
    return from_json((work / "studies/small/study.json").read_bytes()), log.read_text()


def said_again(command: str) -> str:
    """Return what a command of the page prints."""
    words = shlex.split(command)
    assert words[0] == "cgd"
    done = subprocess.run(
        [sys.executable, "-m", "cgd_ray.cli", *words[1:]],
        cwd=REPO, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_study_makes_only_what_is_missing(study, finished, settings):
    found, output = study
    assert "2 cells, 1 trainings to do" in output
    assert "[1/1] distilled, examples matched, seed 1: prompts.test" in output
    assert (found.num_finished, found.num_cells, found.failed) == (2, 2, ())
    summary = json.loads((finished[0] / "summary.json").read_text())["evaluation"]
    base, as_it_is, _ = found.arms
    assert base.tasks[0].accuracy.mean == pytest.approx(summary["base"]["accuracy"])
    assert as_it_is.tasks[0].accuracy.mean == pytest.approx(summary["student"]["accuracy"])
    page = Path(settings.run.work_dir, "studies/small/study.html").read_text()
    assert "Content-Security-Policy" in page and "distilled" in page


def test_the_arms_of_a_study_cost_what_they_took(study):
    _, as_it_is, distilled = study[0].arms
    assert as_it_is.costs is not None and distilled.costs is not None
    assert as_it_is.costs.steps == STEPS
    assert len(distilled.curve) == distilled.costs.steps
    assert distilled.costs.teacher_tokens < as_it_is.costs.teacher_tokens
    per_token = as_it_is.costs.training_flops / as_it_is.costs.train_tokens
    assert per_token == pytest.approx(6 * 134.5e6, rel=0.01)  # SmolLM2-135M


def test_any_figure_of_a_study_is_printed_again_by_its_command(study):
    distilled = study[0].arms[2]
    again = said_again(distilled.commands[0])
    assert f"student     {distilled.tasks[0].accuracy.mean:.1%} right of {NUM_TEST}" in again
    difference = distilled.tasks[0].over_base
    assert f"({100 * difference.mean:+.1f} points" in said_again(difference.command)


@pytest.fixture(scope="module")
def endpoint(finished, overrides, settings) -> Iterator[str]:
    """`cgd serve`, stopped by Ctrl-C."""
    log = Path(settings.run.work_dir) / "serve.log"
    process = start("serve", overrides, log)
    deadline = time.monotonic() + 300
    while "serving base and student at " not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)
    yield log.read_text().split(" at ")[-1].split()[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def test_the_openai_client_and_curl_talk_to_the_student(endpoint):
    client = openai.OpenAI(base_url=endpoint, api_key="none")
    assert {model.id for model in client.models.list()} == {"base", "student"}
    messages = [{"role": "user", "content": "State the final answer: 4 + 3 ="}]
    for model in ("base", "student"):
        answer = client.chat.completions.create(
            model=model, messages=messages, max_tokens=16, temperature=0
        )
        assert answer.choices[0].message.content
    body = json.dumps({"model": "student", "messages": messages, "max_tokens": 8})
    curl = subprocess.run(
        ["curl", "-sf", f"{endpoint}/chat/completions", "-d", body, "-H", JSON],
        capture_output=True,
        check=True,
    )
    assert json.loads(curl.stdout)["model"] == "student"
    streamed = client.chat.completions.create(
        model="student", messages=messages, max_tokens=8, stream=True
    )
    assert "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)


def test_bad_requests_are_refused_clearly(endpoint):
    def ask(**body: object) -> httpx.Response:
        message = {"role": "user", "content": "1 + 1 ="}
        body = {"model": "student", "messages": [message], "max_tokens": 4, **body}
        return httpx.post(f"{endpoint}/chat/completions", json=body, timeout=60)

    assert ask().status_code == 200
    assert ask(model="nobody").status_code == 404
    assert ask(messages=[{"role": "user", "content": "1 + " * 5000}]).status_code == 400
    assert ask().status_code == 200


def test_the_port_of_a_running_server_is_named(endpoint, overrides, settings):
    log = Path(settings.run.work_dir) / "refused.log"
    assert start("serve", overrides, log).wait(60) == 2
    assert f"serve.port={settings.serve.port}" in log.read_text()
    assert os.linesep not in log.read_text().strip()
