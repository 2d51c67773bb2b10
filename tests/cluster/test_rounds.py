"""Two rounds of a run: the second drafts with, and trains further, the first one's student."""

import json
from pathlib import Path

import numpy as np

from cgd_ray.pipeline.context import open_context
from cgd_ray.pipeline.models import trained_model
from cgd_ray.pipeline.rounds import starting_student
from cgd_ray.pipeline.run import examples, generate, train
from cgd_ray.pipeline.stages import finished
from cgd_ray.runtime import ray_session
from cgd_ray.settings import load
from cgd_ray.training.metrics import read_metrics
from tests.support.tiny_student import tiny_student
from tests.support.workers import run_workers

RUN = """
[run]
name = "rounds"
root = "{folder}/store"
work_dir = "{folder}/work"
num_cpus = 4
rounds = 2

[local]
tutor = true

[prompts]
train = "{folder}/prompts.jsonl"
test = "reasoning-gym:chain_sum"
num_test = 2

[student]
model = "{student}"
max_model_len = 512

[sampling]
engine = "echo"
max_tokens = 64

[curation]
require_correct_refinement = false

[packing]
sequence_length = 1024

[train]
dtype = "float32"
learning_rate = 1e-3
num_epochs = 4

[evaluate]
max_tokens = 64
"""


def test_the_second_round_starts_from_the_student_of_the_first(tmp_path: Path, monkeypatch):
    # The loop in processes of its own: what Ray Train adds is tested elsewhere, and costs a minute.
    monkeypatch.setattr("cgd_ray.pipeline.train.launch", lambda task, *_: run_workers(task))
    student = tiny_student(tmp_path / "student")
    rows = [{"prompt": f"{n} + {n + 1} - 3 =", "answer": str(2 * n - 2)} for n in range(12)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.toml").write_text(RUN.format(folder=tmp_path, student=student))
    settings = load(tmp_path / "run.toml")

    contexts, curves = [], []
    for _ in range(settings.run.rounds):
        ctx = open_context(settings)
        with ray_session(settings.run.num_cpus):
            generate(settings)
            examples(settings)
            train(settings)
        assert finished(ctx, "checkpoint") is not None
        contexts.append(ctx)
        curves.append([m.loss for m in read_metrics(ctx.store, ctx.folders.checkpoint)])

    first, second = contexts
    assert (first.round, second.round) == (1, 2)
    assert first.folders.prompts == second.folders.prompts
    assert first.folders.drafts != second.folders.drafts
    assert starting_student(first) == str(student)
    assert Path(starting_student(second)).name == first.folders.checkpoint
    # An echo drafts the same in both rounds, so the second goes on where the first one ended.
    assert np.mean(curves[1]) < np.mean(curves[0])
    assert abs(curves[1][0] - curves[0][-1]) < abs(curves[1][0] - curves[0][0])

    ended = open_context(settings)
    assert ended.round == 2
    assert trained_model(ended).name == second.folders.checkpoint
