"""What a training state of SmolLM2-135M costs the loop: ours beside DeepSpeed's own, on real S3.

One worker on CPU, bfloat16, packed batches of 1,024 tokens. DeepSpeed's way: `save_checkpoint` to a
local folder, then upload and hash, all before the next step. Ours: a copy in memory, uploaded by a
thread while the next steps run; what these lose to it counts as ours, too.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.results import write_result
from cgd_ray.local_servers import s3_server
from cgd_ray.processes import free_port
from cgd_ray.settings import EMBEDDED_STUDENT, TrainSettings
from cgd_ray.store import Store, open_store
from cgd_ray.student import student_source
from cgd_ray.training.checkpoint import list_checkpoints, upload_files
from cgd_ray.training.saving import TrainingStates
from cgd_ray.training.task import TrainTask

GOAL = 0.25  # of what the loop waits for DeepSpeed's way
_TOKENS, _DOCUMENTS = 1024, 4
_ROOT = "s3://states/benchmark"


def main() -> None:
    """Measure both in turn and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with tempfile.TemporaryDirectory(prefix="cgd-wait-") as name:
        folder = Path(name)
        with s3_server(folder / "data", folder / "s3.log", _ROOT):
            measured = _measure(open_store(_ROOT), folder, repeats)
    calm = statistics.median(measured["calm_step_s"])
    theirs = statistics.median(measured["deepspeed_s"])
    copies = statistics.median(measured["copy_s"])
    slower = statistics.median(measured["extra_step_s"])
    ours = copies + slower
    write_result(
        "checkpoint-wait",
        "python -m benchmarks.checkpoint_wait",
        {
            "waits_for_copy_s": round(copies, 2),
            "next_steps_lose_s": round(slower, 2),
            "upload_beside_training_s": round(statistics.median(measured["upload_s"]), 2),
            "state_bytes": int(measured["our_bytes"][0]),
        },
        {
            "waits_s": round(theirs, 2),
            "of_it_save_checkpoint_s": round(statistics.median(measured["deepspeed_local_s"]), 2),
            "state_bytes": int(measured["deepspeed_bytes"][0]),
            "calm_step_s": round(calm, 2),
        },
        ours / theirs,
        {key: [round(v, 3) for v in values] for key, values in measured.items()},
        passed=ours / theirs <= GOAL,
    )
    print(f"copy {copies:.2f} s, next steps lose {slower:.2f} s; DeepSpeed's way {theirs:.2f} s")


def _measure(store: Store, folder: Path, repeats: int) -> dict[str, list[float]]:
    from cgd_ray.training.engine import build_engine, training_device

    task = _task(store, folder)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), RANK="0")
    os.environ.update(LOCAL_RANK="0", WORLD_SIZE="1")
    dist.init_process_group("gloo")
    device = training_device(task)
    engine = build_engine(task, device)
    step = _stepper(engine)
    step()
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with TrainingStates(engine, store, task) as states:
        for number in range(1, repeats + 1):
            calm = [step() for _ in range(3)]
            for seconds in calm:
                note("calm_step_s", seconds)
            local, whole, size = _deepspeed_way(engine, store, folder)
            note("deepspeed_local_s", local)
            note("deepspeed_s", whole)
            note("deepspeed_bytes", size)
            began = time.monotonic()
            states.save(number)
            note("copy_s", time.monotonic() - began)
            lost = 0.0
            while not list_checkpoints(store, task.folder) or not _is_newest(store, task, number):
                lost += step() - statistics.median(calm)
            note("upload_s", time.monotonic() - began)
            note("extra_step_s", lost)
            states.finish()
            newest = list_checkpoints(store, task.folder)[0]
            note("our_bytes", sum(file.num_bytes for file in newest.files))
    return found


def _is_newest(store: Store, task: TrainTask, step: int) -> bool:
    return list_checkpoints(store, task.folder)[0].step == step


def _deepspeed_way(
    engine: Any,  # noqa: ANN401 - untyped library
    store: Store,
    folder: Path,
) -> tuple[float, float, float]:
    """Save as the loop would without a thread; return local seconds, all seconds, bytes."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        engine.save_checkpoint(temporary, tag="state")
        local = time.monotonic() - began
        files = upload_files(store, "deepspeed", Path(temporary))
    return local, time.monotonic() - began, sum(size for _, size, _ in files)


def _stepper(engine: Any) -> Callable[[], float]:  # noqa: ANN401
    """Return what takes one optimiser step on a packed batch and returns its seconds."""
    from cgd_ray.training.batch import BatchTensors
    from cgd_ray.training.loss import target_loss_sum

    draw = torch.Generator().manual_seed(1)
    ids_1T = torch.randint(10, 40_000, (1, _TOKENS), generator=draw)
    length = _TOKENS // _DOCUMENTS
    places_1T = torch.arange(_TOKENS)[None] % length
    targets_K = torch.nonzero(places_1T[0] >= length * 2 // 3).flatten()
    batch = BatchTensors(
        ids_1T, places_1T, targets_K - 1, ids_1T[0, targets_K], [length] * _DOCUMENTS
    )

    def step() -> float:
        began = time.monotonic()
        engine.backward(target_loss_sum(engine, batch) / len(targets_K), scale_wrt_gas=False)
        engine.step()
        return time.monotonic() - began

    return step


def _task(store: Store, folder: Path) -> TrainTask:
    return TrainTask(
        train=TrainSettings(),
        seed=1,
        source=student_source(EMBEDDED_STUDENT, folder),
        root=store.root,
        examples_folder="examples",
        folder="training",
        model_card="",
        on_gpu=False,
        threads=os.cpu_count() or 1,
    )


if __name__ == "__main__":
    main()
