"""How long training waits for data: shards on a real S3 server that takes 100 ms a request.

SmolLM2-135M, bfloat16, one worker, the loop itself; with `train.prefetch_batches` at its default
against a loop that fetches and decodes a row when it needs it.

    python -m benchmarks.train_data
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write_result
from cgd_ray.records import PackedBatch
from cgd_ray.settings import EMBEDDED_STUDENT, TrainSettings
from cgd_ray.shards import commit_shard
from cgd_ray.student import student_source
from cgd_ray.training.metrics import StepMetrics, read_metrics
from cgd_ray.training.task import TrainTask
from tests.support.fault_proxy import Fault, Operation
from tests.support.s3 import BUCKET, S3UnderFire, s3_under_fire
from tests.support.workers import run_workers

LATENCY_S = 0.1
NUM_ROWS, IN_SHARD, ROW_TOKENS, DOCUMENTS = 24, 2, 512, 4
GOAL = 0.01  # of the time of the steps after the first


def main() -> None:
    """Measure and write the result file."""
    with tempfile.TemporaryDirectory() as temporary, s3_under_fire(Path(temporary)) as fire:
        source = student_source(EMBEDDED_STUDENT, Path(temporary) / "work")
        _commit_rows(fire)
        fire.proxy.plan = _late
        ahead = _measure(fire, source, TrainSettings().prefetch_batches)
        on_demand = _measure(fire, source, 0)
    share, without = ahead["wait_share"], on_demand["wait_share"]
    path = write_result(
        "train-data",
        "python -m benchmarks.train_data",
        ahead,
        on_demand,
        round(share / without, 4),
        {"note": "one run each"},
        passed=share <= GOAL,
    )
    print(f"waits {share:.2%} of the step time, {without:.2%} without prefetch: {path}")


def _late(operation: Operation) -> Fault | None:
    return Fault("delay", LATENCY_S) if operation.method == "GET" else None


def _commit_rows(fire: S3UnderFire) -> None:
    """Store rows of random tokens, a third of them targets, a few rows to a file."""
    draw = np.random.default_rng(1)
    length = ROW_TOKENS // DOCUMENTS
    mask = ((0,) * (length - length // 3) + (1,) * (length // 3)) * DOCUMENTS
    names = tuple(f"e{i}" for i in range(DOCUMENTS))
    rows = [
        PackedBatch(i, names, (length,) * DOCUMENTS, tuple(ids.tolist()), mask)
        for i, ids in enumerate(draw.integers(100, 40_000, (NUM_ROWS, length * DOCUMENTS)))
    ]
    for start in range(0, NUM_ROWS, IN_SHARD):
        commit_shard(fire.direct("data"), "examples", rows[start : start + IN_SHARD])


def _measure(fire: S3UnderFire, source: str, num_ahead: int) -> dict[str, Any]:
    folder = f"ahead-{num_ahead}"
    # Not by the settings' own constructor: without prefetch is for this comparison alone.
    train = TrainSettings(trackers=()).model_copy(update={"prefetch_batches": num_ahead})
    root = f"{BUCKET}/data"
    run_workers(TrainTask(train, 1, source, root, "examples", folder, "card", False, 2))
    steps = read_metrics(fire.direct("data"), folder)
    later = steps[1:]  # the first one also waits for the first file, whatever is done
    return {
        "prefetch_batches": num_ahead,
        "steps": len(later),
        "seconds_a_step": round(_total(later, "seconds") / len(later), 4),
        "wait_s_a_step": round(_total(later, "data_wait_s") / len(later), 5),
        "wait_share": round(_total(later, "data_wait_s") / _total(later, "seconds"), 5),
        "first_step_wait_s": round(steps[0].data_wait_s, 3),
        "files_fetched": sum(m.num_fetched for m in steps),
        "latency_s": LATENCY_S,
        "tokens_a_row": ROW_TOKENS,
    }


def _total(steps: list[StepMetrics], name: str) -> float:
    return sum(getattr(m, name) for m in steps)


if __name__ == "__main__":
    main()
