"""The student, and how its drafts are sampled."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cgd_ray.settings.base import Section

EMBEDDED_STUDENT = "embedded:smollm2-135m-instruct"


class StudentSettings(Section):
    """The model that drafts and is then fine-tuned."""

    model: str = EMBEDDED_STUDENT
    """A Hugging Face id, a local folder, or the embedded SmolLM2-135M-Instruct."""
    max_model_len: int = Field(default=2048, ge=64)
    """Longest prompt + answer in tokens, for sampling and serving."""
    num_parameters: float | None = Field(default=None, gt=0)
    """Number of weights, for the arithmetic of `--dry-run` only."""


class SamplingSettings(Section):
    """Drafts: the student's own answers."""

    engine: Literal["vllm", "echo"] = "vllm"
    """`echo` answers with the prompt itself: for tests of the plumbing without a model."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What the engine runs on."""
    num_drafts: int = Field(default=1, ge=1, le=64)
    """Drafts a prompt."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: the smallest set of tokens with this much probability."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest draft in tokens; longer ones are kept, cut off, as the student's own failing."""
    min_replicas: int = Field(default=1, ge=1)
    """Engines that are always up."""
    max_replicas: int = Field(default=1, ge=1)
    """Engines that the actor pool may grow to."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that one engine spreads a layer over."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """GPUs that one engine spreads its layers over, one after another."""
    num_gpus: float = Field(default=1.0, gt=0, le=1)
    """Share of a GPU that one engine takes; below 1, several small engines share one."""
    max_attempts: int = Field(default=3, ge=1)
    """Engines that a row may bring down before it is set aside as poison."""
    max_num_seqs: int = Field(default=256, ge=1)
    """Drafts that one engine writes at once."""
    rows_per_request: int = Field(default=64, ge=1)
    """Rows that one engine call takes from Ray Data."""
    kv_cache_gib: int = Field(default=2, ge=1)
    """Memory for the key-value cache of a CPU engine, in GiB."""

    @model_validator(mode="after")
    def _pool_can_grow(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"sampling.max_replicas={self.max_replicas} is below "
                f"sampling.min_replicas={self.min_replicas}"
            )
        return self

    @model_validator(mode="after")
    def _parallel_engines_take_whole_gpus(self) -> Self:
        if self.num_gpus < 1 and self.tensor_parallel_size * self.pipeline_parallel_size > 1:
            raise ValueError(
                f"sampling.num_gpus={self.num_gpus} shares a GPU among engines, but "
                f"sampling.tensor_parallel_size={self.tensor_parallel_size} and "
                f"sampling.pipeline_parallel_size={self.pipeline_parallel_size} spread one engine "
                "over several: set one or the other to 1"
            )
        return self
