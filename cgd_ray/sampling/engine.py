"""What the sampling engine is started with: pure, printed by `--dry-run` and `doctor`."""

from dataclasses import dataclass
from typing import Any

from cgd_ray.settings import SamplingSettings, StudentSettings

_GPU_MEMORY_SHARE = 0.92  # of the engine's part of a GPU, vLLM's own default for a whole one


@dataclass(frozen=True, slots=True)
class PoolShape:
    """How many batches Ray Data keeps with one engine."""

    max_concurrent_batches: int  # handed to the engine at once
    max_tasks_in_flight: int  # with those that wait at the engine's actor


def pool_shape(sampling: SamplingSettings) -> PoolShape:
    """Return how many batches keep an engine full.

    A batch ends with its longest answer, so on average about half of its rows are done and their
    places free: twice the engine's sequences must be in hand. As many again wait at the actor,
    which is also what Ray Data's pool grows on: it adds an engine when 1.75 times the concurrent
    batches are in flight, so a smaller queue would never grow the pool.
    """
    num_sequences = sampling.max_num_seqs * sampling.pipeline_parallel_size
    num_batches = max(2, -(-2 * num_sequences // sampling.rows_per_request))
    return PoolShape(num_batches, 2 * num_batches)


def engine_kwargs(
    sampling: SamplingSettings, student: StudentSettings, *, on_gpu: bool
) -> dict[str, Any]:
    """Return vLLM's engine arguments."""
    common: dict[str, Any] = {
        "max_model_len": student.max_model_len,
        "max_num_seqs": sampling.max_num_seqs,
        "dtype": "bfloat16",
        "tensor_parallel_size": sampling.tensor_parallel_size,
        "pipeline_parallel_size": sampling.pipeline_parallel_size,
        "distributed_executor_backend": "mp",
    }
    if on_gpu:
        share = round(_GPU_MEMORY_SHARE * sampling.num_gpus, 3)
        return {**common, "gpu_memory_utilization": share}
    # CPU: no graphs to capture; and whole prompts only, because a prompt cut in two steps makes
    # the engine rewind the row's random generator, which CPU generators cannot do. Without
    # chunks a step must be able to take the longest prompt.
    return {
        **common,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(student.max_model_len, 4096),
    }


def engine_environment(kv_cache_gib: int, *, on_gpu: bool) -> dict[str, str]:
    """Return environment variables of an engine's processes. None is secret: Ray logs them."""
    common = {"HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return common if on_gpu else {**common, "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib)}


def engine_bundle(sampling: SamplingSettings, *, on_gpu: bool) -> dict[str, Any]:
    """Return the placement group of one engine: each worker's share of a GPU, or one CPU."""
    unit = {"CPU": 1, "GPU": sampling.num_gpus} if on_gpu else {"CPU": 1}
    num_workers = sampling.tensor_parallel_size * sampling.pipeline_parallel_size
    return {"bundles": [unit] * num_workers}
