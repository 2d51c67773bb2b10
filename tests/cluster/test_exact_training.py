"""The real loop on a tiny real architecture, real DeepSpeed, real processes: exactness."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cgd_ray.records import PackedBatch
from cgd_ray.settings import TrainSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import LocalStore
from cgd_ray.training.batch import load_packed
from cgd_ray.training.checkpoint import list_checkpoints
from cgd_ray.training.metrics import read_metrics
from cgd_ray.training.task import TrainTask
from tests.support.tiny_student import tiny_student
from tests.support.workers import run_workers

NUM_ROWS, STEPS = 8, 6
# Sums in another order: the largest difference that float32 rounding makes here is about 1e-6.
ROUNDING = 5e-6


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("store")
    source = tiny_student(tmp_path_factory.mktemp("student"))
    draw = np.random.default_rng(7)
    rows = []
    for index in range(NUM_ROWS):
        lengths = tuple(int(n) for n in draw.integers(6, 20, 3))
        ids = tuple(int(t) for t in draw.integers(5, 100, sum(lengths)))
        mask = tuple(int(p >= n // 2) for n in lengths for p in range(n))
        rows.append(PackedBatch(index, ("a", "b", "c"), lengths, ids, mask))
    commit_shard(LocalStore(str(root)), "examples", rows)
    return root, str(source)


def task(world: tuple[Path, str], folder: str, **settings) -> TrainTask:
    train = TrainSettings(
        **{
            "dtype": "float32",
            "batches_per_step": 4,
            "num_epochs": 3,
            "learning_rate": 1e-3,
            **settings,
        }
    )
    root, source = world
    return TrainTask(train, 1, source, str(root), "examples", folder, "card", False, 1)


def losses(world: tuple[Path, str], folder: str) -> list[float]:
    return [m.loss for m in read_metrics(LocalStore(str(world[0])), folder)]


@pytest.fixture(scope="module")
def baseline(world) -> list[float]:
    run_workers(task(world, "baseline"))
    return losses(world, "baseline")


def test_it_learns_and_exports_a_model_that_transformers_loads(world, baseline):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert len(baseline) == STEPS
    assert baseline[-1] < baseline[0]
    folder = world[0] / "baseline" / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    before = AutoModelForCausalLM.from_pretrained(world[1])
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(model.parameters(), before.parameters(), strict=True)
    ]
    assert min(moved) > 0
    listed = {name for name, _, _ in json.loads((world[0] / "baseline/model.json").read_text())}
    assert {"model.safetensors", "config.json", "README.md", "tokenizer.json"} <= listed


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("two-workers", {"num_workers": 2}),
        ("zero-1", {"zero_stage": 1}),
        ("zero-2-two-workers", {"zero_stage": 2, "num_workers": 2}),
        ("zero-3-two-workers", {"zero_stage": 3, "num_workers": 2}),
        ("recomputed-activations", {"gradient_checkpointing": True}),
    ],
)
def test_workers_and_sharding_change_nothing(world, baseline, name, settings):
    run_workers(task(world, name, **settings))
    assert np.abs(np.subtract(losses(world, name), baseline)).max() <= ROUNDING
    assert weights_differ(world, name, "baseline") <= 1e-4


@pytest.mark.parametrize("workers", [1, 2])
def test_resumed_equals_uninterrupted(world, workers):
    whole, parts = f"whole-{workers}", f"parts-{workers}"
    settings = {"num_workers": workers, "zero_stage": 2 if workers == 2 else 0}
    run_workers(task(world, whole, **settings))
    # The first part "dies" after its checkpoint: it runs 4 of 6 steps and its end is thrown away.
    first = task(world, parts, **settings, checkpoint_every_steps=2)
    run_workers(first, stop_after_step=4)
    store = LocalStore(str(world[0]))
    assert [c.step for c in list_checkpoints(store, parts)] == [4, 2]
    run_workers(first)
    assert losses(world, parts) == losses(world, whole)
    assert weights_differ(world, parts, whole) == 0.0
    assert list_checkpoints(store, parts) == []


def test_a_damaged_checkpoint_is_passed_over(world):
    parts = task(world, "damaged", checkpoint_every_steps=2)
    run_workers(parts, stop_after_step=4)
    store = LocalStore(str(world[0]))
    newest = list_checkpoints(store, "damaged")[0]
    name = max(newest.files, key=lambda f: f.num_bytes).name
    data = bytearray(store.get(f"{newest.folder}/{name}"))
    data[len(data) // 2] ^= 1
    store.put(f"{newest.folder}/{name}", bytes(data))
    run_workers(parts)
    run_workers(task(world, "undamaged"))
    assert losses(world, "damaged") == losses(world, "undamaged")


def test_a_step_smaller_than_the_others_uses_every_row_once(world):
    short = dataclasses.replace(
        task(world, "short"), train=TrainSettings(dtype="float32", batches_per_step=3)
    )
    run_workers(short)
    store = LocalStore(str(world[0]))
    steps = read_metrics(store, "short")
    assert len(steps) == 3
    assert sum(m.num_tokens for m in steps) == load_packed(store, "examples").num_tokens.sum()


def weights_differ(world: tuple[Path, str], one: str, other: str) -> float:
    from safetensors.torch import load_file

    a, b = (load_file(world[0] / name / "model" / "model.safetensors") for name in (one, other))
    assert a.keys() == b.keys()
    return max((a[k].to(torch.float64) - b[k].to(torch.float64)).abs().max().item() for k in a)
