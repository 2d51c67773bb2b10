"""`cgd estimate` and `cgd preview`: a few rows for real, without a cluster.

The teacher's answers go through the run's journal, so the run that follows does not pay for them
again.
"""

import asyncio
import heapq
from collections.abc import Sequence
from contextlib import ExitStack, closing

import pyarrow as pa

from cgd_ray.errors import UserError
from cgd_ray.keys import key_set
from cgd_ray.noise import say
from cgd_ray.pipeline.capacity import print_capacity
from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.generate import stored_prompts
from cgd_ray.pipeline.local_teacher import journaled_teacher
from cgd_ray.pipeline.rows import DraftRows, DraftSource
from cgd_ray.pipeline.run import opened
from cgd_ray.pipeline.teacher_address import teacher_address
from cgd_ray.pipeline.units import Unit
from cgd_ray.plan import derive
from cgd_ray.prompts.messages import Message
from cgd_ray.prompts.sources import load_prompts
from cgd_ray.records import Critique, Draft, Failure, Outcomes, Prompt, Refinement
from cgd_ray.sampling.draft import build_draft_messages
from cgd_ray.settings import Settings
from cgd_ray.shards import committed_files
from cgd_ray.teacher.chain import teach_all
from cgd_ray.teacher.critique import build_critique_messages
from cgd_ray.teacher.prices import describe, estimate_cost, price_of
from cgd_ray.teacher.refinement import build_refinement_messages
from cgd_ray.teacher.rows import TeacherRow, read_teacher_rows
from cgd_ray.teacher.second_try import SecondTry
from cgd_ray.teacher.single import build_single_messages

_WIDTH = 100


def estimate(
    settings: Settings, rows: int, cluster: bool = False, assume: Sequence[str] | None = None
) -> None:
    """Print what the teacher will cost: the most that settings allow, and what a sample tells.

    Args:
        settings: of the run.
        rows: to sample.
        cluster: print instead what many prompts need: nodes, hours and dollars; asks nobody.
        assume: figures for that page, as `name=value`.

    Raises:
        UserError: the teacher cannot be reached or refuses the calls; or a figure is wrong.
    """
    if cluster:
        return print_capacity(settings, assume or ())
    if assume:
        raise UserError(f"--assume {assume[0]} is for the page of --cluster: give that, too")
    price = price_of(settings.teacher)
    with opened(settings) as ctx:
        sampled = sample_drafts(ctx, rows)
        if not sampled:
            say("there are no drafts yet: `cgd drafts` makes them, and this then asks about a few")
            return
        taught = teach_sample(ctx, sampled)
        total = _num_drafts(ctx)
    critiques = {c.draft_id: c for c in taught.records if isinstance(c, Critique)}
    pairs = [(critiques[r.draft_id], r) for r in taught.records if isinstance(r, Refinement)]
    for failure in taught.failures:
        say(f"failed      {failure.row_id}: {failure.reason}: {failure.detail}")
    if pairs:
        told = estimate_cost(
            [[c.num_input_tokens, r.num_input_tokens] for c, r in pairs],
            [[c.num_output_tokens, r.num_output_tokens] for c, r in pairs],
            total,
            price,
        )
        say(f"estimate    {describe(told)}")


def preview(settings: Settings, rows: int) -> None:
    """Print the chats as they are sent, and a few rows made for real.

    Raises:
        UserError: the prompts cannot be loaded, or the teacher cannot be reached.
    """
    with opened(settings) as ctx:
        sampled = sample_drafts(ctx, rows)
        if not sampled:
            prompt = _first_prompt(settings)
            _show_chat("the student is asked", build_draft_messages(prompt))
            say("\nthere are no drafts yet: `cgd drafts` makes them, then whole rows show here")
            return
        taught = teach_sample(ctx, sampled)
    prompt, draft = sampled[0]
    _show_chat("the student is asked", build_draft_messages(prompt))
    made = {(type(r), r.key): r for r in taught.records}
    _show_teaching(sampled[0], made.get((Critique, draft.id)), settings.teacher.turns)
    failed = {f.row_id: f for f in taught.failures}
    for prompt, draft in sampled:
        _show_row(prompt, draft, made.get((Critique, draft.id)), made.get((Refinement, draft.id)))
        if draft.id in failed:
            say(f"  failed      {failed[draft.id].reason}: {failed[draft.id].detail}")


def sample_drafts(ctx: RunContext, num_rows: int) -> list[TeacherRow]:
    """Return some stored drafts with their prompts: those of the smallest ids.

    Ids are hashes, so these are a random sample, and the same one each time.
    """
    files = committed_files(ctx.store, ctx.folders.drafts, Draft)
    places = ((key, file.key, row) for file in files for row, key in enumerate(file.ids))
    chosen = heapq.nsmallest(num_rows, places)
    units = tuple(Unit(file, row, row + 1) for _, file, row in chosen)
    source = DraftSource(ctx.store.root, units, key_set([]), *stored_prompts(ctx))
    return read_teacher_rows(DraftRows(source)(pa.table({"id": list(range(len(units)))})))


def teach_sample(ctx: RunContext, rows: Sequence[TeacherRow]) -> Outcomes:
    """Return the teacher's answers to a few rows, kept in the run's journal.

    Raises:
        UserError: the teacher cannot be reached, or there is a cap on money and no price.
    """
    with teacher_address(ctx) as base_url:
        return asyncio.run(_teach(ctx, rows, base_url))


async def _teach(ctx: RunContext, rows: Sequence[TeacherRow], base_url: str) -> Outcomes:
    t = ctx.settings.teacher
    with ExitStack() as stack:
        mender = None
        if ctx.settings.curation.leakage == "regenerate":
            mender = stack.enter_context(closing(SecondTry()))
        async with journaled_teacher(ctx, base_url) as teacher:
            gate = asyncio.Semaphore(t.max_in_flight)
            taught = await teach_all(teacher, rows, t, gate, mender)
    stopped = taught.stop
    if stopped is None:
        return taught.outcomes
    return Outcomes(
        taught.outcomes.records,
        (Failure("all others", "critiques", stopped.reason, stopped.detail, permanent=False),),
    )


def _first_prompt(settings: Settings) -> Prompt:
    chunks = load_prompts(settings.prompts, settings.run.seed)
    return next(r for chunk in chunks for r in chunk.records if isinstance(r, Prompt))


def _num_drafts(ctx: RunContext) -> int:
    made = sum(len(f.ids) for f in committed_files(ctx.store, ctx.folders.drafts, Draft))
    return derive(ctx.settings).num_drafts or made


def _show_chat(title: str, messages: Sequence[Message]) -> None:
    say(f"\n--- {title}")
    for message in messages:
        say(f"[{message['role']}]\n{message['content']}")


def _show_teaching(row: TeacherRow, first: object, turns: int) -> None:
    if turns == 1:
        _show_chat("the teacher is asked for both at once", build_single_messages(*row))
        return
    _show_chat("the teacher is asked for a critique", build_critique_messages(*row))
    if isinstance(first, Critique):
        chat = build_refinement_messages(*row, first)
        _show_chat("and, in the same chat, for a refinement", chat[2:])


def _show_row(prompt: Prompt, draft: Draft, critique: object, refinement: object) -> None:
    say(f"\n--- {draft.id}")
    for name, record in (
        ("prompt", prompt),
        ("draft", draft),
        ("critique", critique),
        ("refinement", refinement),
    ):
        if record is not None:
            text = " ".join(getattr(record, "text").split())  # noqa: B009
            say(f"  {name:<12}{text[:_WIDTH]}{'...' if len(text) > _WIDTH else ''}")
