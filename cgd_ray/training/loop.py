"""The training loop: one flat function that every worker runs.

Ray Train starts the workers and their process group; the loop itself needs only that group.

Top to bottom: model and engine, the newest whole checkpoint, then steps. Order, schedule, loss,
tensors and checkpoints are apart, pure where they can be, and tested on their own.
"""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from cgd_ray.store import open_store
from cgd_ray.training.batch import load_packed
from cgd_ray.training.engine import build_engine, training_device
from cgd_ray.training.export import export_model
from cgd_ray.training.finite import require_finite
from cgd_ray.training.loss import target_loss_sum
from cgd_ray.training.metrics import MetricsWriter, StepMetrics
from cgd_ray.training.order import num_steps, rows_of_step, rows_of_worker, step_seed
from cgd_ray.training.saving import TrainingStates
from cgd_ray.training.schedule import learning_rate
from cgd_ray.training.stopping import Stopped, terminated
from cgd_ray.training.task import TrainTask


def train_loop(task: TrainTask, stop_asked: Callable[[], bool] = terminated) -> None:
    """Train, saving states on the way and the Hugging Face folder at the end.

    Args:
        task: what to train, from what, and where to.
        stop_asked: asked once a step; if any worker's says yes, all save a state and stop.

    Raises:
        Stopped: training was asked to stop, and the state is saved.
        UserError: the state in the store is of other settings, a state cannot be saved, or the
            loss or its gradient is not finite.
    """
    train, store = task.train, open_store(task.root)
    rank, world = dist.get_rank(), dist.get_world_size()
    device = training_device(task)
    data = load_packed(store, task.examples_folder)
    total = num_steps(len(data), train.batches_per_step, train.num_epochs, train.max_steps)
    engine = build_engine(task, device)
    metrics = MetricsWriter(store, task.folder) if rank == 0 else None

    with TrainingStates(engine, store, task) as states:
        for step in range(states.resume(), total):
            start = time.monotonic()
            torch.manual_seed(step_seed(task.seed, step, rank))
            rows = rows_of_step(step, len(data), train.batches_per_step, task.seed)
            num_targets = int(data.num_targets[rows].sum())
            rate = learning_rate(step, total, train.learning_rate, train.warmup_ratio)
            for group in engine.optimizer.param_groups:
                group["lr"] = rate
            loss_sum = torch.zeros((), dtype=torch.float64, device=device)
            row_losses: dict[int, torch.Tensor] = {}
            for row in rows_of_worker(rows, rank, world, train.batches_per_step):
                loss = target_loss_sum(engine, data.tensors(row or 0, device))
                if row is None:
                    loss = loss * 0.0
                row_losses[row or 0] = loss.detach()
                loss_sum += loss.detach()
                # DeepSpeed averages over workers; the mean over the step's targets is our loss.
                engine.backward(loss * (world / num_targets), scale_wrt_gas=False)
                engine.step()
            stops = loss_sum.new_tensor(stop_asked() or states.failed)
            sums = torch.stack([loss_sum, stops])
            dist.all_reduce(sums)
            step_loss, must_stop = sums[0].item() / num_targets, sums[1].item() > 0
            norm = float(engine.get_global_grad_norm() or 0.0)
            require_finite(step + 1, step_loss, norm, row_losses, data.example_ids)
            if metrics:
                tokens = int(data.num_tokens[rows].sum())
                seconds = time.monotonic() - start
                metrics.add(
                    StepMetrics(step + 1, step_loss, rate, norm, num_targets, tokens, seconds)
                )
            if must_stop or states.due(step + 1, total):
                if metrics:
                    metrics.flush()
                states.save(step + 1)
            if must_stop:
                states.finish()
                raise Stopped(f"after step {step + 1} of {total}")

        states.finish()
        if metrics:
            metrics.flush()
        export_model(engine, store, task)
        states.delete()
