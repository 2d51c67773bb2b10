"""Stages 2 and 3 as Ray Data plans: prompts -> drafts -> critiques and refinements.

Both plans end in a writing step that commits shards and hands on counts only, so the driver holds
no text, and what was made before a crash is there after it.
"""

from functools import partial
from typing import Any

import pyarrow as pa
import ray.data

from cgd_ray.errors import UserError
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.prompts import read_prompts
from cgd_ray.pipeline.teacher_address import teacher_address
from cgd_ray.progress import StageLine
from cgd_ray.records import Critique, Draft, Failure, Prompt, Refinement
from cgd_ray.runtime import ray_session, use_gpu
from cgd_ray.sampling.draft import build_draft_messages, draft_id, draft_seed
from cgd_ray.sampling.processor import echo_processor, vllm_processor
from cgd_ray.sampling.writer import write_drafts
from cgd_ray.shards import commit_shard, count_reasons, read_failures, read_records
from cgd_ray.student import chat_tokenizer, student_source
from cgd_ray.teacher.actor import TeacherActor

_TEACHER_ROWS = 16  # rows in one committed shard of the teacher: what a crash can lose


def make_drafts(ctx: RunContext) -> Summary:
    """Sample the drafts that the store lacks.

    Raises:
        UserError: not one could be made.
    """
    s, store, folder = ctx.settings, ctx.store, ctx.folders.drafts
    prompts = read_prompts(ctx, "train")
    total = len(prompts) * s.sampling.num_drafts
    made = read_records(store, folder, Draft)
    final = {k for k, f in read_failures(store, folder, made).items() if f.permanent}
    source = student_source(s.student.model, ctx.work_dir)
    rows, refused = _draft_rows(ctx, prompts, source, set(made) | final)
    if refused:
        commit_shard(store, folder, refused)
    skipped = len(made) + len(final)
    with ctx.progress.stage("drafts", total, "rows") as line:
        line.update(0, len(refused), skipped, "starting the engine")
        if rows:
            with ray_session(s.run.num_cpus):
                _follow(_draft_plan(ctx, rows, source), line, len(refused), skipped)
    made = read_records(store, folder, Draft)
    failures = read_failures(store, folder, made)
    _require_some(made, failures, "drafts")
    return {
        "asked": total,
        "made": len(made),
        "failed": count_reasons(failures),
        "tokens": sum(draft.num_tokens for draft in made.values()),
    }


def _draft_rows(
    ctx: RunContext, prompts: dict[str, Prompt], source: str, done: set[str]
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Return the engine's rows for drafts not done, and a failure for each over-long prompt."""
    s = ctx.settings
    tokenizer = chat_tokenizer(source)
    limit = s.student.max_model_len - s.sampling.max_tokens
    rows: list[dict[str, Any]] = []
    refused: list[Failure] = []
    for prompt in prompts.values():
        keys = [draft_id(prompt.id, i) for i in range(s.sampling.num_drafts)]
        todo = [(i, key) for i, key in enumerate(keys) if key not in done]
        tokens = tokenizer.encode_prompt(build_draft_messages(prompt)) if todo else []
        for index, key in todo:
            if len(tokens) > limit:
                detail = (
                    f"{len(tokens)} tokens; student.max_model_len={s.student.max_model_len} less "
                    f"sampling.max_tokens={s.sampling.max_tokens} leaves {limit}"
                )
                refused.append(Failure(key, "drafts", "too_long", detail, permanent=True))
                continue
            seed = draft_seed(key, s.run.seed)
            params = {
                "temperature": s.sampling.temperature,
                "top_p": s.sampling.top_p,
                "max_tokens": s.sampling.max_tokens,
                "seed": seed,
            }
            rows.append(
                {
                    "prompt_id": prompt.id,
                    "draft_index": index,
                    "draft_seed": seed,
                    "draft_max_tokens": s.sampling.max_tokens,  # the engine drops its parameters
                    "tokenized_prompt": tokens,
                    "sampling_params": params,
                }
            )
    return rows, refused


def _draft_plan(ctx: RunContext, rows: list[dict[str, Any]], source: str) -> ray.data.Dataset:
    s = ctx.settings
    size = s.sampling.rows_per_request
    dataset = _dataset(rows, size)
    if s.sampling.engine == "echo":
        answered = echo_processor(dataset)
    else:
        on_gpu = use_gpu(s.sampling.accelerator)
        answered = vllm_processor(source, s.sampling, s.student, on_gpu=on_gpu)(dataset)
    write = partial(write_drafts, root=ctx.store.root, folder=ctx.folders.drafts)
    return answered.map_batches(write, batch_size=size, batch_format="pyarrow")


def make_refinements(ctx: RunContext) -> Summary:
    """Ask the teacher for the critiques and refinements that the store lacks.

    Raises:
        UserError: the teacher refuses every call (key, address); what was made is kept.
    """
    with teacher_address(ctx) as base_url:
        return _make_taught(ctx, base_url)


def _make_taught(ctx: RunContext, base_url: str) -> Summary:
    s, store, folder = ctx.settings, ctx.store, ctx.folders.refinements
    prompts = read_prompts(ctx, "train")
    drafts = read_records(store, ctx.folders.drafts, Draft)
    made = read_records(store, folder, Refinement)
    final = {k for k, f in read_failures(store, folder, made).items() if f.permanent}
    todo = [d for key, d in drafts.items() if key not in made and key not in final]
    # A critique whose refinement failed is paid for: the next attempt goes on from it.
    critiqued = read_records(store, folder, Critique)
    rows = [
        {
            "prompt": _plain(prompts[draft.prompt_id]),
            "draft": _plain(draft),
            "critique": _plain(critiqued[draft.id]) if draft.id in critiqued else None,
        }
        for draft in todo
    ]
    skipped = len(made) + len(final)
    with ctx.progress.stage("teacher", len(drafts), "rows") as line:
        line.update(0, 0, skipped)
        if rows:
            with ray_session(s.run.num_cpus):
                stop = _follow(_teacher_plan(ctx, rows, base_url), line, 0, skipped)
                if stop:
                    raise UserError(
                        f"the teacher at {base_url} refuses calls ({stop}): check teacher.model "
                        "and its key; what was made is kept, and the same command goes on"
                    )
    critiques = read_records(store, folder, Critique)
    refinements = read_records(store, folder, Refinement)
    failures = read_failures(store, folder, refinements)
    _require_some(refinements, failures, "refinements")
    calls = [*critiques.values(), *refinements.values()]
    return {
        "asked": len(drafts),
        "critiqued": len(critiques),
        "refined": len(refinements),
        "failed": count_reasons(failures),
        "input_tokens": sum(call.num_input_tokens for call in calls),
        "cached_tokens": sum(call.num_cached_tokens for call in calls),
        "output_tokens": sum(call.num_output_tokens for call in calls),
    }


def _teacher_plan(ctx: RunContext, rows: list[dict[str, Any]], base_url: str) -> ray.data.Dataset:
    s = ctx.settings
    return _dataset(rows, _TEACHER_ROWS).map_batches(
        TeacherActor,
        fn_constructor_args=(s.teacher, base_url, ctx.store.root, ctx.folders.refinements),
        batch_size=_TEACHER_ROWS,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=s.teacher.num_actors),
        max_concurrency=max(2, -(-s.teacher.max_in_flight // _TEACHER_ROWS)),
        num_cpus=0.5,
    )


def _dataset(rows: list[dict[str, Any]], block_rows: int) -> ray.data.Dataset:
    """Return a data set of equal blocks, the same for the same rows."""
    table = pa.Table.from_pylist(rows)
    starts = range(0, len(rows), block_rows)
    return ray.data.from_arrow([table.slice(i, block_rows).combine_chunks() for i in starts])


def _follow(plan: ray.data.Dataset, line: StageLine, failed: int, skipped: int) -> str | None:
    """Run a plan, showing the counts of each shard as it lands; return a reason to stop, if any."""
    made = 0
    line.update(made, failed, skipped, "starting")
    for row in plan.iter_rows():
        made += row["made"]
        failed += row["failed"]
        line.update(made, failed, skipped)
        if row["stop"]:
            return row["stop"]
    line.update(made, failed, skipped)
    return None


def _plain(record: Prompt | Draft | Critique) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.SCHEMA.names}


def _require_some(made: dict[str, Any], failures: dict[str, Failure], what: str) -> None:
    """Refuse to go on, and to call the stage finished, when every row failed."""
    if made:
        return
    commonest = next(iter(failures.values()), None)
    detail = f"; for example {commonest.row_id}: {commonest.detail}" if commonest else ""
    raise UserError(f"no {what} could be made: {count_reasons(failures)}{detail}")
