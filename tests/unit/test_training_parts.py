"""The pure parts of training: order, schedule, DeepSpeed's configuration, tensors, metrics."""

import math
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from cgd_ray.examples.packing import pack
from cgd_ray.records import Example, PackedBatch, to_table
from cgd_ray.settings import TrainSettings
from cgd_ray.shards import commit_shard, parquet_bytes
from cgd_ray.store import LocalStore
from cgd_ray.training import metrics as metrics_module
from cgd_ray.training.batch import load_packed, packed_from_parquet
from cgd_ray.training.deepspeed_config import deepspeed_config
from cgd_ray.training.metrics import MetricsWriter, StepMetrics, read_metrics, tokens_per_second
from cgd_ray.training.order import num_steps, rows_of_step, rows_of_worker, steps_per_epoch
from cgd_ray.training.schedule import learning_rate

CPU = torch.device("cpu")


# Order.


@pytest.mark.parametrize(("num_rows", "a_step"), [(1, 1), (7, 3), (12, 4), (5, 8), (100, 7)])
def test_every_epoch_takes_each_row_once(num_rows: int, a_step: int) -> None:
    steps = steps_per_epoch(num_rows, a_step)
    epochs = []
    for epoch in range(3):
        taken = [rows_of_step(epoch * steps + s, num_rows, a_step, 1) for s in range(steps)]
        assert [len(rows) for rows in taken[:-1]] == [a_step] * (steps - 1)
        assert 0 < len(taken[-1]) <= a_step
        epochs.append([row for rows in taken for row in rows])
        assert sorted(epochs[-1]) == list(range(num_rows))
    if num_rows > 5:
        assert epochs[0] != epochs[1] != epochs[2]
        assert rows_of_step(0, num_rows, num_rows, 2) != epochs[0]


def test_the_order_is_pinned() -> None:
    assert [rows_of_step(step, 7, 3, 1) for step in range(6)] == [
        [5, 0, 1],
        [4, 2, 6],
        [3],
        [6, 1, 4],
        [0, 3, 2],
        [5],
    ]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 6])
def test_workers_share_a_step_without_changing_it(num_workers: int) -> None:
    for step in range(6):
        rows = rows_of_step(step, 8, 6, 1)
        shares = [rows_of_worker(rows, rank, num_workers, 6) for rank in range(num_workers)]
        assert {len(share) for share in shares} == {6 // num_workers}, "all take part equally"
        taken = [row for share in shares for row in share if row is not None]
        assert sorted(taken) == sorted(rows)


def test_a_short_last_step_leaves_places_empty() -> None:
    assert rows_of_worker([4, 2, 9], 0, 2, 4) == [4, 9]
    assert rows_of_worker([4, 2, 9], 1, 2, 4) == [2, None]
    assert rows_of_worker([4], 1, 2, 4) == [None, None]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((7, 3, 1, None), 3), ((7, 3, 2, None), 6), ((6, 3, 2, None), 4), ((7, 3, 2, 5), 5)],
)
def test_the_number_of_steps(arguments: tuple[int, int, int, int | None], expected: int) -> None:
    assert num_steps(*arguments) == expected
    assert num_steps(7, 3, 2, 100) == 6


# Schedule.


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    rates = [learning_rate(step, 20, 1.0, 0.2) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[12] == pytest.approx(0.5)
    assert rates[8] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert rates[19] == pytest.approx(0.5 * (1 + math.cos(math.pi * 15 / 16)))
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert [learning_rate(s, 20, 3e-4, 0.2) for s in (3, 12)] == pytest.approx([3e-4, 1.5e-4])


def test_rates_at_the_edges() -> None:
    assert learning_rate(0, 1, 1.0, 0.1) == 1.0, "one step, no warm-up to speak of"
    assert [learning_rate(s, 2, 1.0, 0.0) for s in range(2)] == [1.0, 0.5]
    for number in range(1, 30):
        for ratio in (0.0, 0.1, 0.5, 0.99):
            rates = [learning_rate(step, number, 2.0, ratio) for step in range(number)]
            assert all(0 < rate <= 2.0 for rate in rates), "no step is wasted on a rate of 0"


# DeepSpeed.


def test_deepspeed_is_told_what_the_settings_say() -> None:
    config = deepspeed_config(
        TrainSettings(batches_per_step=12, zero_stage=3, max_grad_norm=0.5, dtype="bfloat16"),
        num_workers=4,
    )
    assert config["train_micro_batch_size_per_gpu"] == 1
    assert config["gradient_accumulation_steps"] == 3
    assert config["gradient_clipping"] == 0.5
    assert config["zero_optimization"]["stage"] == 3
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
    assert config["bf16"]["enabled"] is True
    assert "optimizer" not in config, "AdamW is torch's"
    assert "scheduler" not in config, "the loop sets the rate"
    plain = deepspeed_config(TrainSettings(zero_stage=0, dtype="float32"), num_workers=1)
    assert plain["zero_optimization"]["stage"] == 0
    assert plain["bf16"]["enabled"] is False
    assert plain["gradient_accumulation_steps"] == 1


# Tensors.

ROW = PackedBatch(
    index=0,
    example_ids=("a", "b"),
    document_lengths=(4, 3),
    input_ids=(10, 11, 12, 13, 20, 21, 22),
    loss_mask=(0, 0, 1, 1, 0, 0, 1),
)


def test_a_row_as_tensors(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    commit_shard(store, "examples", [ROW])
    batch = load_packed(store, "examples").tensors(0, CPU)
    assert batch.input_ids_1T.tolist() == [[10, 11, 12, 13, 20, 21, 22]]
    assert batch.position_ids_1T.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch.predict_at_K.tolist() == [1, 2, 5], "the place before each target"
    assert batch.target_ids_K.tolist() == [12, 13, 22]
    assert batch.document_lengths == [4, 3]
    assert {t.dtype for t in (batch.input_ids_1T, batch.predict_at_K)} == {torch.int64}


def test_a_padded_row_keeps_its_targets(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    commit_shard(store, "examples", [ROW])
    plain = load_packed(store, "examples").tensors(0, CPU)
    batch = plain.padded()
    assert batch.input_ids_1T.shape == batch.position_ids_1T.shape == (1, 64)
    assert batch.input_ids_1T[0, :7].tolist() == list(ROW.input_ids)
    assert batch.position_ids_1T[0].tolist() == [0, 1, 2, 3, *range(60)]
    assert batch.document_lengths == [4, 60]
    assert batch.predict_at_K is plain.predict_at_K
    assert batch.target_ids_K is plain.target_ids_K
    assert batch.padded().document_lengths == [4, 60], "64 tokens need none"


def test_rows_are_by_index_whatever_the_shards(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    examples = [Example(f"e{i}", "cgd", tuple(range(i, i + 5)), (0, 0, 0, 1, 1)) for i in range(9)]
    rows = pack(examples, 10, None)
    for start in (3, 0, 4, 1, 2):
        commit_shard(store, "examples", [rows[start]])
    data = load_packed(store, "examples")
    assert len(data) == len(rows) == 5
    for index, row in enumerate(rows):
        assert data.example_ids(index) == list(row.example_ids)
        assert data.tensors(index, CPU).input_ids_1T.tolist() == [list(row.input_ids)]
    assert data.num_tokens.tolist() == [len(row.input_ids) for row in rows]
    assert data.num_targets.tolist() == [sum(row.loss_mask) for row in rows]
    assert data.num_targets.dtype == np.int64


def test_a_shard_committed_twice_is_read_once(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    other = PackedBatch(1, ("c",), (2,), (1, 2), (0, 1))
    commit_shard(store, "examples", [ROW, other])
    commit_shard(store, "examples", [ROW])
    data = load_packed(store, "examples")
    assert len(data) == 2
    assert data.example_ids(1) == ["c"]


def test_long_masks_are_counted_without_overflow() -> None:
    row = PackedBatch(0, ("a",), (1000,), tuple(range(1000)), (0, *[1] * 999))
    data = packed_from_parquet(parquet_bytes(to_table([row], PackedBatch)))
    assert data.num_targets.tolist() == [999]


# Metrics.


def step(number: int, loss: float = 1.0, seconds: float = 0.5) -> StepMetrics:
    return StepMetrics(number, loss, 1e-4, 1.0, 10, 100, seconds)


def test_metrics_come_back_in_order(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert read_metrics(store, "run") == []
    writer = MetricsWriter(store, "run")
    for number in range(1, 13):
        writer.add(step(number))
        if number % 5 == 0:
            writer.flush()
    writer.flush()
    writer.flush()
    assert read_metrics(store, "run") == [step(number) for number in range(1, 13)]


def test_metrics_are_written_a_few_seconds_worth_at_a_time(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    now = 100.0
    with patch.object(metrics_module.time, "monotonic", lambda: now):
        writer = MetricsWriter(store, "run")
        writer.add(step(1))
        assert read_metrics(store, "run") == []
        now = 103.0
        writer.add(step(2))
    assert len(read_metrics(store, "run")) == 2


def test_of_a_step_run_twice_the_later_counts(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    before = MetricsWriter(store, "run")
    for start in (1, 11):  # killed after step 20, with a state after step 5
        for number in range(start, start + 10):
            before.add(step(number, loss=9.0))
        before.flush()
    after = MetricsWriter(store, "run")
    for number in range(6, 19):
        after.add(step(number, loss=2.0))
    after.flush()
    losses = [m.loss for m in read_metrics(store, "run")]
    assert losses == [9.0] * 5 + [2.0] * 13 + [9.0] * 2


def test_tokens_a_second_count_all_tokens() -> None:
    assert tokens_per_second([step(1), step(2, seconds=1.5)]) == 100.0
    assert tokens_per_second([]) == 0.0
