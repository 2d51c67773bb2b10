"""Fine-tuning."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cgd_ray.settings.base import Section


class TrainSettings(Section):
    """Fine-tuning: Ray Train running DeepSpeed."""

    num_workers: int = Field(default=1, ge=1)
    """Worker processes, one GPU each where there are GPUs."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What the workers run on: gloo on CPU, nccl on GPU."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: what is sharded over the workers."""
    batches_per_step: int = Field(default=1, ge=1)
    """Packed batches in one optimiser step, over all workers."""
    num_epochs: int = Field(default=1, ge=1)
    """Passes over the packed batches."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many optimiser steps; None: at the end of the last epoch."""
    learning_rate: float = Field(default=5e-6, gt=0)
    """Peak learning rate of AdamW."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises to its peak; then it falls as a cosine."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of weights and activations; the optimiser keeps float32 master weights either way."""
    gradient_checkpointing: bool = False
    """Compute activations twice to store them less."""
    checkpoint_every_steps: int = Field(default=500, ge=1)
    """Save the training state so often; a killed run resumes from the last one."""
    max_failures: int = Field(default=3, ge=0)
    """Times that Ray Train restarts lost workers by itself."""

    @model_validator(mode="after")
    def _workers_divide_the_step(self) -> Self:
        if self.batches_per_step % self.num_workers:
            raise ValueError(
                f"train.batches_per_step={self.batches_per_step} is not a multiple of "
                f"train.num_workers={self.num_workers}"
            )
        return self
