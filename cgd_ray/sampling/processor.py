"""Prompts -> answers on a pool of engine actors: the only file that knows `ray.data.llm`."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset
from ray.data.llm import build_processor, vLLMEngineProcessorConfig
from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMEngineStageUDF

from cgd_ray.model_folders import on_this_node
from cgd_ray.sampling.answers import ANSWERS, QUESTION, row_ids, with_answers
from cgd_ray.sampling.attempts import AttemptRecord, Attempts
from cgd_ray.sampling.echo import EchoEngine, EchoFaults
from cgd_ray.sampling.engine import (
    engine_bundle,
    engine_environment,
    engine_kwargs,
    pool_shape,
)
from cgd_ray.sampling.guard import Chunk
from cgd_ray.settings import SamplingSettings, StudentSettings

_MAX_FAILED_STARTS = 2  # in a row: memory that a dying engine still holds comes back within these
_RESOURCES = ("num_cpus", "num_gpus", "resources", "runtime_env")
_NO_FAULTS = EchoFaults()


def sampler(
    source: str,
    sampling: SamplingSettings,
    student: StudentSettings,
    record: AttemptRecord,
    *,
    on_gpu: bool,
    label_selector: Mapping[str, str] | None = None,
    echo_faults: EchoFaults = _NO_FAULTS,
) -> Callable[[Dataset], Dataset]:
    """Return the step of a Ray Data plan that answers tokenized prompts.

    Rows in hold `prompt_id`, `draft_index`, `tokenized_prompt` (a list of token ids) and
    `sampling_params`. The last two are consumed; `generated_text`, `num_generated_tokens` and
    `__inference_error__` (empty where the engine answered) are added; all else stays as it came.

    Args:
        source: the student's folder or Hugging Face id.
        sampling: engine, pool and limits.
        student: length limit.
        record: where attempts are kept, so that rows that kill engines are found.
        on_gpu: what the engine runs on.
        label_selector: of the nodes that engines run on.
        echo_faults: for `sampling.engine="echo"` only.
    """
    if sampling.engine == "echo":
        engine: type = EchoEngine
        options = _echo_options(sampling, record, echo_faults, on_gpu=on_gpu)
    else:
        engine = VllmEngine
        options = _vllm_options(source, sampling, student, record, on_gpu=on_gpu)

    def step(dataset: Dataset) -> Dataset:
        answered = dataset.map_batches(
            engine,
            batch_size=sampling.rows_per_request,
            batch_format="pyarrow",
            compute=_pool(sampling),
            label_selector=None if label_selector is None else dict(label_selector),
            **options,
        )
        answered.context.max_consecutive_actor_init_deaths = _MAX_FAILED_STARTS
        return answered

    return step


class VllmEngine(vLLMEngineStageUDF):
    """Ray's own vLLM actor, with rows as Arrow tables and its attempts on record."""

    def __init__(self, source: str, record: AttemptRecord, stage: dict[str, Any]) -> None:
        on_this_node(source, record.root)
        super().__init__(**stage)
        self._attempts = Attempts(record)

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """Yield the rows with their answers."""
        questions = batch.select(QUESTION).to_pylist()

        async def answer(chunk: Chunk) -> pa.Table:
            return await self._answer(questions[chunk.start : chunk.stop])

        yield with_answers(batch, await self._attempts.run(row_ids(batch), answer))

    async def _answer(self, questions: list[dict[str, Any]]) -> pa.Table:
        from vllm.sampling_params import RequestOutputKind

        for index, question in enumerate(questions):
            question[self.IDX_IN_BATCH_COLUMN] = index
            # One message when the answer is whole, as `vllm.LLM` asks for, not one a token.
            question["sampling_params"]["output_kind"] = RequestOutputKind.FINAL_ONLY
        answers = [answer async for answer in self.udf(questions)]
        answers.sort(key=lambda answer: answer[self.IDX_IN_BATCH_COLUMN])
        rows = [{name: answer[name] for name in ANSWERS.names} for answer in answers]
        return pa.Table.from_pylist(rows, schema=ANSWERS)


def _pool(sampling: SamplingSettings) -> ActorPoolStrategy:
    shape = pool_shape(sampling)
    return ActorPoolStrategy(
        min_size=sampling.min_replicas,
        max_size=sampling.max_replicas,
        max_tasks_in_flight_per_actor=shape.max_tasks_in_flight,
        max_concurrent_calls_per_actor=shape.max_concurrent_batches,
    )


def _echo_options(
    sampling: SamplingSettings, record: AttemptRecord, faults: EchoFaults, *, on_gpu: bool
) -> dict[str, Any]:
    return {
        "fn_constructor_kwargs": {"record": record, "faults": faults},
        "num_cpus": 1,
        "num_gpus": sampling.num_gpus if on_gpu else 0,
    }


def _vllm_options(
    source: str,
    sampling: SamplingSettings,
    student: StudentSettings,
    record: AttemptRecord,
    *,
    on_gpu: bool,
) -> dict[str, Any]:
    """Return what Ray's own processor would start its vLLM actors with, and the record."""
    config = vLLMEngineProcessorConfig(
        model_source=source,
        batch_size=sampling.rows_per_request,
        max_concurrent_batches=pool_shape(sampling).max_concurrent_batches,
        engine_kwargs=engine_kwargs(sampling, student, on_gpu=on_gpu),
        placement_group_config=engine_bundle(sampling, on_gpu=on_gpu),
        runtime_env={"env_vars": engine_environment(sampling.kv_cache_gib, on_gpu=on_gpu)},
        should_continue_on_error=True,
        # Prompts arrive as tokens and leave as text: no templating or tokenizing actors.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
    )
    (stage,) = build_processor(config).stages.values()  # pyright: ignore
    options = stage.get_dataset_map_batches_kwargs(sampling.rows_per_request, "unused")
    arguments = {"source": source, "record": record, "stage": options["fn_constructor_kwargs"]}
    resources = {key: options[key] for key in _RESOURCES if key in options}
    return {"fn_constructor_kwargs": arguments, **resources}
