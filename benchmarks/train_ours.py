"""One training run of ours, as a process of its own: the loop on one worker, without Ray.

Reads the same task as `train_rivals.py` from stdin and prints the same line of JSON.

    python -m benchmarks.train_ours < task.json
"""

import json
import os
import sys
import tempfile
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist

from cgd_ray.examples.packing import pack
from cgd_ray.processes import free_port
from cgd_ray.records import Example
from cgd_ray.settings import TrainSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import LocalStore
from cgd_ray.training.loop import train_loop
from cgd_ray.training.metrics import read_metrics
from cgd_ray.training.task import TrainTask


def train_task(task: dict[str, Any], root: str) -> TrainTask:
    """Return our task for the benchmark's."""
    train = TrainSettings(
        num_epochs=task["num_steps"],  # more than enough
        max_steps=task["num_steps"],
        learning_rate=task["learning_rate"],
        checkpoint_every_steps=task["num_steps"] + 1,
        trackers=(),
    )
    return TrainTask(
        train=train,
        seed=1,
        source=task["source"],
        root=root,
        examples_folder="examples",
        folder="checkpoint",
        model_card="",
        on_gpu=torch.cuda.is_available(),
        threads=task["threads"],
    )


def main() -> None:
    """Train, print what was measured."""
    task = json.load(sys.stdin)
    documents = [
        Example(str(i), "cgd", tuple(ids), tuple(mask))
        for i, (ids, mask) in enumerate(zip(task["input_ids"], task["loss_masks"], strict=True))
    ]
    os.environ["LOCAL_RANK"] = "0"  # DeepSpeed asks for it
    address = f"tcp://127.0.0.1:{free_port()}"
    dist.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    with tempfile.TemporaryDirectory() as root:
        store = LocalStore(root)
        rows = pack(documents, task["tokens_a_row"], None)
        commit_shard(store, "examples", rows)
        train_loop(train_task(task, root))
        steps = [asdict(step) for step in read_metrics(store, "checkpoint")]
    dist.destroy_process_group()
    result = {
        "seconds": [step["seconds"] for step in steps],
        "steps": [{"tokens": s["num_tokens"], "targets": s["num_targets"]} for s in steps],
        "num_targets": sum(sum(row.loss_mask) for row in rows),
        "losses": [step["loss"] for step in steps],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
