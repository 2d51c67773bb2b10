"""Prompts -> answers on a pool of vLLM actors: the only file that knows `ray.data.llm`."""

from collections.abc import Callable
from typing import Any

from ray.data import Dataset
from ray.data.llm import build_processor, vLLMEngineProcessorConfig

from cgd_ray.sampling.engine import engine_bundle, engine_environment, engine_kwargs
from cgd_ray.settings import SamplingSettings, StudentSettings


def vllm_processor(
    source: str, sampling: SamplingSettings, student: StudentSettings, *, on_gpu: bool
) -> Callable[[Dataset], Dataset]:
    """Return a step of a Ray Data plan that answers tokenized prompts.

    Rows in hold `tokenized_prompt` and `sampling_params`; rows out add `generated_text`,
    `num_generated_tokens` and `__inference_error__`, which is empty where the engine answered.

    Args:
        source: the student's folder or Hugging Face id.
        sampling: pool and engine settings.
        student: length limit.
        on_gpu: what the engine runs on.
    """
    low, high = sampling.min_replicas, sampling.max_replicas
    config = vLLMEngineProcessorConfig(
        model_source=source,
        concurrency=(low, high),
        batch_size=sampling.rows_per_request,
        engine_kwargs=engine_kwargs(sampling, student, on_gpu=on_gpu),
        placement_group_config=engine_bundle(sampling.tensor_parallel_size, on_gpu=on_gpu),
        runtime_env={"env_vars": engine_environment(sampling.kv_cache_gib, on_gpu=on_gpu)},
        should_continue_on_error=True,
        # Prompts arrive as tokens and leave as text: no templating or tokenizing actors.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
    )
    return build_processor(config, preprocess=_same, postprocess=_same)  # pyright: ignore


def echo_processor(dataset: Dataset) -> Dataset:
    """Answer every prompt with its own token ids: the plumbing without an engine."""
    return dataset.map(_echo)


def _same(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _echo(row: dict[str, Any]) -> dict[str, Any]:
    ids = [int(token) for token in row["tokenized_prompt"]]
    text = " ".join(map(str, ids))
    return {
        **row,
        "generated_text": text,
        "num_generated_tokens": len(ids),
        "__inference_error__": "",
    }
