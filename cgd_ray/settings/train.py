"""Fine-tuning."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from cgd_ray.settings.base import Section
from cgd_ray.settings.lora import LoraSettings


class TrainSettings(Section):
    """Fine-tuning: Ray Train running DeepSpeed."""

    SPEED_ONLY: ClassVar[frozenset[str]] = frozenset(
        {
            "num_workers",
            "accelerator",
            "zero_stage",
            "gradient_checkpointing",
            "offload_optimizer",
            "offload_parameters",
            "liger",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "max_failures",
            "resize_every_s",
            "prefetch_batches",
            "data_cache_gib",
            "trackers",
            "tracking_project",
            "peak_tflops",
        }
    )
    """Fields that change speed and memory, and the trained weights by rounding at most."""

    num_workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 1
    """Worker processes, a GPU each where there are GPUs. [min, max]: as many as have room."""
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
    seed: int | None = None
    """Of the order of the examples and of dropout: trainings that differ in it alone are repeats of
    one recipe on the same data; None: run.seed."""
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
    offload_optimizer: bool = False
    """Keep the optimiser's weights and moments in the machine's memory (ZeRO 1 to 3)."""
    offload_parameters: bool = False
    """Keep the weights in the machine's memory as well (ZeRO 3)."""
    liger: Literal["auto", "on", "off"] = "auto"
    """Liger's kernels for norms, rotary positions and MLPs; auto: on a GPU, where
    `liger-kernel` is installed and knows the model's family."""
    lora: LoraSettings = LoraSettings()
    """Low-rank adapters instead of training all weights."""
    checkpoint_every_steps: int = Field(default=500, ge=1)
    """Save the training state so often; a killed run resumes from the last one."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Training states to keep, the newest; a damaged one is passed over for the one before."""
    max_failures: int = Field(default=3, ge=0)
    """Times that Ray Train restarts lost workers by itself."""
    resize_every_s: float = Field(default=60.0, gt=0)
    """With a range of workers: how often those that have room now are counted."""
    shuffle_window_rows: int = Field(default=65_536, ge=1024)
    """Packed batches that are shuffled together: whole files of 1,024, drawn at random. All of a
    smaller data set."""
    prefetch_batches: int = Field(default=8, ge=1)
    """Packed batches that a worker makes ready ahead of the step that takes them."""
    data_cache_gib: float = Field(default=4.0, gt=0)
    """Most disk that fetched shard files take on a machine, under TMPDIR. A window should fit: 5
    bytes a token; else files are fetched again and again (`num_fetched` in the metrics)."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where each step's figures go besides `run.root`. TensorBoard's files are kept there too; W&B
    and MLflow take account and server from their environment variables."""
    tracking_project: str = "cgd_ray"
    """The project of W&B, the experiment of MLflow."""
    peak_tflops: float | None = Field(default=None, gt=0)
    """What a worker's device can compute in train.dtype, in 10^12 FLOP/s, for the model FLOPs
    utilisation (MFU); None: from the GPU's name, and no MFU on a CPU."""

    @property
    def min_workers(self) -> int:
        """The fewest workers that training goes on with."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """The most workers, where there is room for them."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @model_validator(mode="after")
    def _workers_suit_the_step(self) -> Self:
        low, high = self.min_workers, self.max_workers
        if low > high:
            raise ValueError(
                f"train.num_workers=[{low}, {high}]: the first is more than the second"
            )
        if high > self.batches_per_step:
            raise ValueError(
                f"train.batches_per_step={self.batches_per_step} is less than {high} workers: "
                "raise it or lower train.num_workers"
            )
        if low == high and self.batches_per_step % high:
            raise ValueError(
                f"train.batches_per_step={self.batches_per_step} is not a multiple of "
                f"train.num_workers={high}"
            )
        return self

    @model_validator(mode="after")
    def _offloads_what_is_sharded(self) -> Self:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("train.offload_optimizer needs train.zero_stage of 1, 2 or 3, not 0")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(
                f"train.offload_parameters needs train.zero_stage=3, not {self.zero_stage}"
            )
        return self
