"""The training loop: one flat function that every worker runs.

Ray Train starts the workers and their process group; the loop itself needs only that group.

Top to bottom: model and engine, the newest whole checkpoint, then steps. Order, schedule, loss,
tensors and checkpoints are apart, pure where they can be, and tested on their own.
"""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from cgd_ray.model_folders import on_this_node
from cgd_ray.store import open_store
from cgd_ray.training.batch import load_packed
from cgd_ray.training.checkpoint import delete_checkpoints
from cgd_ray.training.engine import build_engine, training_device
from cgd_ray.training.export import export_model, is_exported
from cgd_ray.training.finite import require_finite
from cgd_ray.training.loss import target_loss_sum
from cgd_ray.training.measuring import step_meter
from cgd_ray.training.order import (
    num_steps,
    planned_rows,
    rows_of_step,
    rows_of_worker,
    step_seed,
)
from cgd_ray.training.prefetch import BatchStream
from cgd_ray.training.saving import TrainingStates
from cgd_ray.training.schedule import learning_rate
from cgd_ray.training.stopping import Stopped, terminated
from cgd_ray.training.task import TrainTask
from cgd_ray.training.tracking import Tracking


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
    if is_exported(store, task.folder):  # by workers that were lost before they could say so
        return delete_checkpoints(store, task.folder)
    rank, world = dist.get_rank(), dist.get_world_size()
    on_this_node(task.source, task.root)
    device = training_device(task)
    data = load_packed(store, task.examples_folder, train.data_cache_gib)
    total = num_steps(len(data), train.batches_per_step, train.num_epochs, train.max_steps)
    engine = build_engine(task, device)
    meter = step_meter(data.index, engine.module, train, device, world)
    order = (len(data), train.batches_per_step, task.seed, train.shuffle_window_rows)

    with (
        TrainingStates(engine, store, task) as states,
        Tracking(task, store, active=rank == 0) as tracking,
        BatchStream(data, device, train.prefetch_batches) as batches,
    ):
        steps = range(states.resume(), total)
        batches.start(planned_rows(steps, *order, rank, world))
        for step in steps:
            start = time.monotonic()
            torch.manual_seed(step_seed(task.seed, step, rank))
            rows = rows_of_step(step, *order)
            num_targets = int(data.num_targets[rows].sum())
            rate = learning_rate(step, total, train.learning_rate, train.warmup_ratio)
            for group in engine.optimizer.param_groups:
                group["lr"] = rate
            loss_sum = torch.zeros((), dtype=torch.float64, device=device)
            row_losses: dict[int, torch.Tensor] = {}
            for row in rows_of_worker(rows, rank, world, train.batches_per_step):
                loss = target_loss_sum(engine, batches.next())
                if row is None:
                    loss = loss * 0.0
                row_losses[rows[0] if row is None else row] = loss.detach()
                loss_sum += loss.detach()
                # DeepSpeed averages over workers; the mean over the step's targets is our loss.
                engine.backward(loss * (world / num_targets), scale_wrt_gas=False)
                engine.step()
            stops = loss_sum.new_tensor(stop_asked() or states.failed)
            sums = torch.stack([loss_sum, stops, *loss_sum.new_tensor(batches.take_costs())])
            dist.all_reduce(sums)
            loss_total, num_stops, waited_s, num_fetched = sums.tolist()
            step_loss, must_stop = loss_total / num_targets, num_stops > 0
            norm = float(engine.get_global_grad_norm() or 0.0)
            require_finite(step + 1, step_loss, norm, row_losses, data.example_ids)
            tracking.add(
                meter.measure(
                    rows,
                    step=step + 1,
                    loss=step_loss,
                    learning_rate=rate,
                    grad_norm=norm,
                    seconds=time.monotonic() - start,
                    data_wait_s=waited_s / world,
                    num_fetched=int(num_fetched),
                )
            )
            if must_stop or states.due(step + 1, total):
                tracking.flush()
                states.save(step + 1)
            if must_stop:
                states.finish()
                raise Stopped(f"after step {step + 1} of {total}")

        states.finish()
        tracking.flush()
        export_model(engine, store, task)
        states.delete()
    data.close()
