"""The training loop: one flat function that every worker runs.

Ray Train starts the workers and their process group; the loop itself needs only that group.

Top to bottom: model and engine, the newest whole checkpoint, then steps. Order, schedule, loss,
tensors and checkpoints are apart, pure where they can be, and tested on their own.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from cgd_ray.store import Store, open_store
from cgd_ray.training import checkpoint as states
from cgd_ray.training.attention import DOCUMENT_ATTENTION, register
from cgd_ray.training.batch import load_packed
from cgd_ray.training.deepspeed_config import deepspeed_config
from cgd_ray.training.loss import target_loss_sum
from cgd_ray.training.metrics import MetricsWriter, StepMetrics
from cgd_ray.training.order import num_steps, rows_of_step, rows_of_worker
from cgd_ray.training.schedule import learning_rate
from cgd_ray.training.task import TrainTask


def train_loop(task: TrainTask) -> None:
    """Train, saving states on the way and the Hugging Face folder at the end."""
    train, store = task.train, open_store(task.root)
    rank, world = dist.get_rank(), dist.get_world_size()
    device = _device(task)
    data = load_packed(store, task.examples_folder)
    total = num_steps(len(data), train.batches_per_step, train.num_epochs, train.max_steps)
    engine = _engine(task, device)
    first = _resume(engine, store, task.folder)
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
            _save(engine, store, task.folder, step + 1)

    if metrics:
        metrics.flush()
    _export(engine, store, task)


def _device(task: TrainTask) -> torch.device:
    if task.on_gpu:
        return torch.device("cuda", torch.cuda.current_device())
    torch.set_num_threads(task.threads)
    return torch.device("cpu")


def _engine(task: TrainTask, device: torch.device) -> Any:  # noqa: ANN401 - untyped library
    register()
    config = deepspeed_config(task.train)
    dtype = getattr(torch, task.train.dtype)
    # Alive while the model loads: transformers then shards the weights over the workers at once.
    sharded = HfDeepSpeedConfig(config) if task.train.zero_stage == 3 else None
    model: Any = AutoModelForCausalLM.from_pretrained(
        task.source, dtype=dtype, attn_implementation=DOCUMENT_ATTENTION
    )
    del sharded
    if task.train.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=task.train.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=task.train.weight_decay,
        fused=True,
    )
    engine, *_ = deepspeed.initialize(model=model.to(device), optimizer=optimizer, config=config)
    return engine


def _save(engine: Any, store: Store, stage_folder: str, step: int) -> None:  # noqa: ANN401
    """Write a training state: each worker its own files, then one manifest for all."""
    folder = states.checkpoint_folder(stage_folder, step)
    with tempfile.TemporaryDirectory(prefix="cgd-state-") as temporary:
        engine.save_checkpoint(temporary, tag="state")
        written = states.upload_files(store, folder, Path(temporary))
    gathered: list[list[states.File]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, written)
    if dist.get_rank() == 0:
        before = states.list_checkpoints(store, stage_folder)
        files = {file[0]: file for part in gathered for file in part}
        states.commit_checkpoint(store, folder, step, len(gathered), list(files.values()))
        for old in before[1:]:
            states.delete_checkpoint(store, old)


def _resume(engine: Any, store: Store, stage_folder: str) -> int:  # noqa: ANN401
    """Load the newest whole checkpoint that this many workers wrote; return its step, or 0."""
    for checkpoint in states.list_checkpoints(store, stage_folder):
        if checkpoint.num_workers != dist.get_world_size():
            continue
        with tempfile.TemporaryDirectory(prefix="cgd-state-") as temporary:
            wrong = states.download_checkpoint(store, checkpoint, Path(temporary))
            verdicts: list[str | None] = [None] * dist.get_world_size()
            dist.all_gather_object(verdicts, wrong)
            if any(verdicts):
                continue
            engine.load_checkpoint(temporary, tag="state")
        return checkpoint.step
    return 0


def _export(engine: Any, store: Store, task: TrainTask) -> None:  # noqa: ANN401
    """Write the trained student as a Hugging Face folder of safetensors, with its tokenizer."""
    if task.train.zero_stage == 3:
        weights = engine._zero3_consolidated_16bit_state_dict()
    else:
        weights = engine.module.state_dict()
    if dist.get_rank() == 0:
        with tempfile.TemporaryDirectory(prefix="cgd-model-") as temporary:
            folder = Path(temporary)
            model = engine.module
            if model.config.tie_word_embeddings:
                weights.pop("lm_head.weight", None)
            model.save_pretrained(folder, state_dict=weights)
            AutoTokenizer.from_pretrained(task.source).save_pretrained(folder)
            (folder / "README.md").write_text(task.model_card, encoding="utf-8")
            files = states.upload_files(store, f"{task.folder}/model", folder)
        store.put(f"{task.folder}/model.json", json.dumps(files).encode())
        for old in states.list_checkpoints(store, task.folder):
            states.delete_checkpoint(store, old)
    dist.barrier()
