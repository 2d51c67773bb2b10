"""The student as a DeepSpeed engine: weights, attention, optimiser, sharding."""

from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from cgd_ray.training.attention import DOCUMENT_ATTENTION, register
from cgd_ray.training.cpu import apply_lean_layers, prepare_process
from cgd_ray.training.deepspeed_config import deepspeed_config
from cgd_ray.training.liger import apply_liger
from cgd_ray.training.lora import add_adapters
from cgd_ray.training.task import TrainTask
from cgd_ray.training.update import update_in_parts


def training_device(task: TrainTask) -> torch.device:
    """Return this worker's device, with its threads set."""
    if task.on_gpu:
        return torch.device("cuda", torch.cuda.current_device())
    prepare_process(task.threads)
    return torch.device("cpu")


def build_engine(task: TrainTask, device: torch.device) -> Any:  # noqa: ANN401 - untyped library
    """Load the student and hand it to DeepSpeed, sharded as the settings say."""
    register()
    # Else DeepSpeed compiles its shared-memory collectives on the spot, and a worker that is killed
    # meanwhile leaves a lock for which all later training on the machine waits, for ever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    config = deepspeed_config(task.train, dist.get_world_size())
    dtype = getattr(torch, task.train.dtype)
    # Alive while the model loads: transformers then shards the weights over the workers at once.
    sharded = HfDeepSpeedConfig(config) if task.train.zero_stage == 3 else None
    model: Any = AutoModelForCausalLM.from_pretrained(
        task.source, dtype=dtype, attn_implementation=DOCUMENT_ATTENTION
    )
    del sharded
    apply_liger(model, task.train.liger, on_gpu=task.on_gpu)
    if not task.on_gpu:
        apply_lean_layers(model)
    if task.train.lora.rank:
        add_adapters(model, task.train.lora, task.seed)
    if task.train.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=task.train.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=task.train.weight_decay,
        fused=True,
    )
    engine, *_ = deepspeed.initialize(model=model.to(device), optimizer=optimizer, config=config)
    if task.train.zero_stage == 0 and dist.get_world_size() == 1:
        engine.enable_backward_allreduce = False  # it would copy all gradients to reduce nothing
    if task.train.zero_stage == 0 and task.train.dtype == "bfloat16":
        update_in_parts(engine.optimizer)
    return engine
