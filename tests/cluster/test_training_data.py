"""The loop reads from a real S3 server: same curve whatever is cached; and the curve is pinned."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cgd_ray.examples.packing import pack
from cgd_ray.records import Example
from cgd_ray.settings import TrainSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import LocalStore, Store
from cgd_ray.training.metrics import StepMetrics, read_metrics
from cgd_ray.training.order import rows_of_step, rows_of_worker
from cgd_ray.training.task import TrainTask
from tests.support.packed_rows import documents
from tests.support.s3 import BUCKET, S3UnderFire, s3_under_fire
from tests.support.tiny_student import tiny_student
from tests.support.workers import run_workers

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "loss_curve.json"
NUM_ROWS, IN_SHARD = 12, 2
# Sums in another order: the largest difference that float32 rounding makes here is about 1e-6.
ROUNDING = 5e-6


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_student(tmp_path_factory.mktemp("student")))


@pytest.fixture(scope="module")
def fire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3UnderFire]:
    with s3_under_fire(tmp_path_factory.mktemp("s3")) as running:
        lengths = np.random.default_rng(3).integers(8, 30, NUM_ROWS)
        rows = pack(documents(lengths.tolist()), 30, 1)
        for start in range(0, NUM_ROWS, IN_SHARD):
            commit_shard(running.direct("data"), "examples", rows[start : start + IN_SHARD])
        yield running


def train(root: str, source: str, folder: str, **settings: object) -> None:
    given = {"dtype": "float32", "learning_rate": 1e-3, "trackers": (), **settings}
    task = TrainTask(TrainSettings(**given), 1, source, root, "examples", folder, "card", False, 1)
    run_workers(task)


def curve(store: Store, folder: str) -> list[StepMetrics]:
    return read_metrics(store, folder)


def test_a_cache_of_one_file_gives_the_same_curve(fire: S3UnderFire, source: str) -> None:
    settings = {"batches_per_step": 4, "num_epochs": 2}
    root, store = f"{BUCKET}/data", fire.direct("data")
    train(root, source, "roomy", **settings)
    train(root, source, "narrow", **settings, data_cache_gib=1e-9, prefetch_batches=1)
    roomy, narrow = curve(store, "roomy"), curve(store, "narrow")
    assert [m.loss for m in roomy] == [m.loss for m in narrow]
    assert sum(m.num_fetched for m in roomy) == NUM_ROWS / IN_SHARD, "each file once"
    assert sum(m.num_fetched for m in narrow) > NUM_ROWS / IN_SHARD
    assert all(0 <= m.data_wait_s <= m.seconds for m in roomy)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_only_the_files_of_the_rows_to_come_are_asked_for(
    fire: S3UnderFire, source: str, num_workers: int
) -> None:
    settings = {"batches_per_step": 2, "max_steps": 2, "num_workers": num_workers}
    fire.proxy.operations = []
    train(f"{BUCKET}/data", source, f"few-{num_workers}", **settings)
    asked = [
        found[1]
        for operation in fire.proxy.operations
        if operation.method == "GET"
        and (found := re.search(r"shards/([0-9a-f]+-[0-9a-f]+)-packedbatch", operation.target))
    ]
    needed = set()
    for step in range(2):
        rows = rows_of_step(step, NUM_ROWS, 2, 1)
        for rank in range(num_workers):
            needed |= {row // IN_SHARD for row in rows_of_worker(rows, rank, num_workers, 2) if row}
    assert len(asked) == len(set(asked)), "workers of one machine share what is fetched"
    assert len(asked) <= len(needed | {0}) < NUM_ROWS / IN_SHARD


def test_the_engines_curve_is_the_pinned_one(source: str, tmp_path: Path) -> None:
    """The golden of tests/unit/test_packed_loss.py comes from a plain loop without DeepSpeed."""
    store = LocalStore(str(tmp_path))
    examples = documents([20, 9, 33, 15, 8, 40, 12, 27, 5, 18, 30, 22], seed=5)
    commit_shard(store, "examples", pack(examples, 64, None))
    settings = {"batches_per_step": 2, "num_epochs": 100, "max_steps": 20, "learning_rate": 3e-3}
    train(str(tmp_path), source, "golden", **settings)
    pinned = json.loads(GOLDEN.read_text())
    losses = [m.loss for m in curve(store, "golden")]
    assert losses == pytest.approx(pinned["losses"], abs=pinned["tolerance_nats"])


def test_how_a_global_batch_is_computed_changes_nothing(source: str, tmp_path: Path) -> None:
    """Four documents a step: in one row, in four rows one after the other, on two workers."""
    examples: list[Example] = documents([20, 9, 33, 15], seed=5)
    curves: list[list[float]] = []
    for name, most, per_step, workers in [
        ("one-row", None, 1, 1),
        ("four-rows", 1, 4, 1),
        ("two-workers", 1, 4, 2),
    ]:
        store = LocalStore(str(tmp_path / name))
        commit_shard(store, "examples", pack(examples, 100, most))
        settings = {"batches_per_step": per_step, "num_workers": workers, "num_epochs": 6}
        train(store.root, source, "run", **settings)
        curves.append([m.loss for m in curve(store, "run")])
        assert len(curves[-1]) == 6
    assert np.abs(np.subtract(curves[1:], curves[0])).max() <= ROUNDING
