"""What the sampling engine is started with: pure, printed by `--dry-run` and `doctor`."""

from typing import Any

from cgd_ray.settings import SamplingSettings, StudentSettings


def engine_kwargs(
    sampling: SamplingSettings, student: StudentSettings, *, on_gpu: bool
) -> dict[str, Any]:
    """Return vLLM's engine arguments."""
    common: dict[str, Any] = {
        "max_model_len": student.max_model_len,
        "dtype": "bfloat16",
        "tensor_parallel_size": sampling.tensor_parallel_size,
        "distributed_executor_backend": "mp",
    }
    if on_gpu:
        return common
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


def engine_bundle(tensor_parallel_size: int, *, on_gpu: bool) -> dict[str, Any]:
    """Return the placement group of one engine: a GPU for each worker, or one CPU."""
    unit = {"CPU": 1, "GPU": 1} if on_gpu else {"CPU": 1}
    return {"bundles": [unit] * tensor_parallel_size}
