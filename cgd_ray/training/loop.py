"""The training loop: one flat function that every worker runs.

Ray Train starts the workers and their process group; the loop itself needs only that group.

Top to bottom: model and engine, the newest whole checkpoint, then steps. Order, schedule, loss,
tensors and checkpoints are apart, pure where they can be, and tested on their own.
"""

import time

import torch
import torch.distributed as dist

from cgd_ray.store import open_store
from cgd_ray.training.batch import load_packed
from cgd_ray.training.engine import build_engine, training_device
from cgd_ray.training.export import export_model
from cgd_ray.training.loss import target_loss_sum
from cgd_ray.training.metrics import MetricsWriter, StepMetrics
from cgd_ray.training.order import num_steps, rows_of_step, rows_of_worker
from cgd_ray.training.saving import resume_state, save_state
from cgd_ray.training.schedule import learning_rate
from cgd_ray.training.task import TrainTask


def train_loop(task: TrainTask) -> None:
    """Train, saving states on the way and the Hugging Face folder at the end."""
    train, store = task.train, open_store(task.root)
    rank, world = dist.get_rank(), dist.get_world_size()
    device = training_device(task)
    data = load_packed(store, task.examples_folder)
    total = num_steps(len(data), train.batches_per_step, train.num_epochs, train.max_steps)
    engine = build_engine(task, device)
    first = resume_state(engine, store, task.folder)
    metrics = MetricsWriter(store, task.folder) if rank == 0 else None

    for step in range(first, total):
        start = time.monotonic()
        rows = rows_of_step(step, len(data), train.batches_per_step, task.seed)
        num_targets = int(data.num_targets[rows].sum())
        rate = learning_rate(step, total, train.learning_rate, train.warmup_ratio)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        for row in rows_of_worker(rows, rank, world, train.batches_per_step):
            loss = target_loss_sum(engine, data.tensors(row or 0, device))
            if row is None:
                loss = loss * 0.0
            loss_sum += loss.detach()
            # DeepSpeed averages over workers; the mean over the step's targets is what we want.
            engine.backward(loss * (world / num_targets), scale_wrt_gas=False)
            engine.step()
        dist.all_reduce(loss_sum)
        step_loss = loss_sum.item() / num_targets
        if metrics:
            tokens = int(data.num_tokens[rows].sum())
            seconds = time.monotonic() - start
            norm = float(engine.get_global_grad_norm() or 0.0)
            metrics.add(StepMetrics(step + 1, step_loss, rate, norm, num_targets, tokens, seconds))
        if (step + 1) % train.checkpoint_every_steps == 0 and step + 1 < total:
            if metrics:
                metrics.flush()
            save_state(engine, store, task.folder, step + 1)

    if metrics:
        metrics.flush()
    export_model(engine, store, task)
