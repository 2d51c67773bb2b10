"""Stages 2 and 3: prompts -> drafts -> critiques and refinements, streaming or one at a time.

The driver knows ids and counts; the rows themselves go from store to worker to store.
"""

from collections.abc import Callable

from cgd_ray.errors import UserError
from cgd_ray.keys import KeyIndex, joined, key_index, key_set
from cgd_ray.pipeline.batches import fill_journal
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.desk import DeskStatus
from cgd_ray.pipeline.desk_link import DeskLink
from cgd_ray.pipeline.follow import Teaching, follow
from cgd_ray.pipeline.plans import draft_plan, stored_plan, teacher_plan
from cgd_ray.pipeline.prompts import split_folder
from cgd_ray.pipeline.rounds import starting_student
from cgd_ray.pipeline.rows import DraftSource, PromptSource
from cgd_ray.pipeline.spending import journal_folder, spent_usd
from cgd_ray.pipeline.teacher_address import teacher_address
from cgd_ray.pipeline.units import draft_units, prompt_units
from cgd_ray.records import Critique, Draft, Failure, Prompt, Record, Refinement
from cgd_ray.runtime import ray_session
from cgd_ray.sampling.attempts import forget_attempts
from cgd_ray.sampling.requests import DraftOptions
from cgd_ray.shards import committed_files, count_reasons, read_failures, read_rows
from cgd_ray.teacher.actor import TeacherPost
from cgd_ray.teacher.governor import Governor, limits_of
from cgd_ray.teacher.journal import read_index
from cgd_ray.teacher.prices import FREE, check_budget, price_of
from cgd_ray.watching.export import export
from cgd_ray.watching.figures import GenerationFigures, StageRows


def make_drafts(ctx: RunContext) -> Summary:
    """Sample the drafts that the store lacks.

    Raises:
        UserError: not one could be made.
    """
    source = _prompt_source(ctx)
    total, done = _num_drafts(ctx), len(source.done)
    with ctx.progress.stage("drafts", total, "rows") as line:
        line.update(0, 0, done, "starting the engine")
        if source.units:
            with ray_session(ctx.settings.run.num_cpus):
                desk = DeskLink(Governor(limits_of(ctx.settings.teacher, 0.0)))
                plan = draft_plan(ctx.settings, source, desk, hand_on=False)
                watch = _watch(ctx, drafts=StageRows(total, done))
                follow(plan, desk, line, "drafts", done, _teaching(ctx, total, done), watch)
    return drafts_summary(ctx, done)


def make_refinements(ctx: RunContext) -> Summary:
    """Ask the teacher for the critiques and refinements that the store lacks.

    Raises:
        UserError: the teacher refuses every call (key, address), or the run's money is spent; what
            was made is kept.
    """
    with teacher_address(ctx) as base_url:
        source = _draft_source(ctx)
        done = len(source.done)
        total = len(read_rows(ctx.store, ctx.folders.drafts).of(Draft))
        with ctx.progress.stage("teacher", total, "rows") as line:
            line.update(0, 0, done)
            if source.units and ctx.settings.teacher.mode == "batch":
                fill_journal(ctx, base_url, source, line)
                source = _draft_source(ctx)  # without the rows that failed for good
                done = len(source.done)
            if source.units:
                with ray_session(ctx.settings.run.num_cpus):
                    desk = _teacher_desk(ctx)
                    post = _post(ctx, base_url, desk)
                    plan = teacher_plan(stored_plan(source), ctx.settings, post, total)
                    watch = _watch(ctx, total - done, teacher=StageRows(total, done))
                    follow(plan, desk, line, "teacher", done, _teaching(ctx, total, done), watch)
    return refinements_summary(ctx)


def make_both(ctx: RunContext) -> tuple[Summary, Summary]:
    """Draft and teach in one streaming plan: the teacher works while the engine samples.

    Batches of the teacher's wait for all drafts.

    Raises:
        UserError: as the two stages alone.
    """
    if ctx.settings.teacher.mode == "batch":
        return make_drafts(ctx), make_refinements(ctx)
    with teacher_address(ctx) as base_url:
        fresh, stored = _prompt_source(ctx), _draft_source(ctx)
        made = read_rows(ctx.store, ctx.folders.drafts).of(Draft)
        lost = len(fresh.done) - len(made)  # drafts that failed for good
        total, done = _num_drafts(ctx), len(stored.done) + lost
        with ctx.progress.stage("generation", total, "rows") as line:
            line.update(0, 0, done, "starting the engine")
            with ray_session(ctx.settings.run.num_cpus):
                desk = _teacher_desk(ctx)
                rows = [stored_plan(stored)] if stored.units else []
                if fresh.units:
                    rows.append(draft_plan(ctx.settings, fresh, desk, hand_on=True))
                if rows:
                    joined = rows[0].union(*rows[1:]) if rows[1:] else rows[0]
                    post = _post(ctx, base_url, desk)
                    plan = teacher_plan(joined, ctx.settings, post, total)
                    watch = _watch(
                        ctx,
                        len(made) - len(stored.done),
                        drafts=StageRows(total, len(fresh.done)),
                        teacher=StageRows(total - lost, len(stored.done)),
                    )
                    follow(plan, desk, line, "teacher", done, _teaching(ctx, total, done), watch)
    return drafts_summary(ctx, len(fresh.done)), refinements_summary(ctx)


def drafts_summary(ctx: RunContext, before: int) -> Summary:
    """Close a drafted run and return its counts.

    Args:
        ctx: of the run.
        before: drafts that needed no work when this attempt began.

    Raises:
        UserError: not one draft could be made.
    """
    folder = ctx.folders.drafts
    rows = read_rows(ctx.store, folder)
    made = rows.of(Draft)
    failures = read_failures(ctx.store, folder, made)
    asked = _num_drafts(ctx)
    _require_all(asked, made, failures, "drafts")
    forget_attempts(ctx.store, folder)
    return {
        "asked": asked,
        "made": len(made),
        "before": before,
        "failed": count_reasons(failures),
        "tokens": rows.total("num_tokens", Draft),
    }


def refinements_summary(ctx: RunContext) -> Summary:
    """Return the counts of a taught run.

    Raises:
        UserError: not one refinement could be made.
    """
    folder = ctx.folders.refinements
    rows, calls = read_rows(ctx.store, folder), (Critique, Refinement)
    refined = rows.of(Refinement)
    failures = read_failures(ctx.store, folder, refined)
    asked = len(read_rows(ctx.store, ctx.folders.drafts).of(Draft))
    _require_all(asked, refined, failures, "refinements")
    return {
        "asked": asked,
        "critiqued": len(rows.of(Critique)),
        "refined": len(refined),
        "failed": count_reasons(failures),
        "input_tokens": rows.total("num_input_tokens", *calls),
        "cached_tokens": rows.total("num_cached_tokens", *calls),
        "output_tokens": rows.total("num_output_tokens", *calls),
        "usd": spent_usd(ctx) if price_of(ctx.settings.teacher) else None,
    }


def _prompt_source(ctx: RunContext) -> PromptSource:
    s = ctx.settings
    done = _done(ctx, ctx.folders.drafts, Draft)
    per_unit = max(1, s.sampling.rows_per_request // s.sampling.num_drafts)
    files = committed_files(ctx.store, split_folder(ctx.folders.prompts, "train"), Prompt)
    return PromptSource(
        root=ctx.store.root,
        folder=ctx.folders.drafts,
        units=tuple(prompt_units(files, s.sampling.num_drafts, done, per_unit)),
        done=done,
        tokenizer=starting_student(ctx),
        options=DraftOptions(
            s.sampling.num_drafts,
            s.sampling.temperature,
            s.sampling.top_p,
            s.sampling.max_tokens,
            s.student.max_model_len,
            s.run.seed,
        ),
    )


def stored_prompts(ctx: RunContext) -> tuple[tuple[str, ...], KeyIndex]:
    """Return the files of the training prompts, and in which of them each prompt is."""
    files = list(committed_files(ctx.store, split_folder(ctx.folders.prompts, "train"), Prompt))
    index = key_index((key, i) for i, file in enumerate(files) for key in file.ids)
    return tuple(file.key for file in files), index


def _draft_source(ctx: RunContext) -> DraftSource:
    done = _done(ctx, ctx.folders.refinements, Refinement)
    drafts = committed_files(ctx.store, ctx.folders.drafts, Draft)
    units = draft_units(drafts, done, ctx.settings.sampling.rows_per_request)
    return DraftSource(ctx.store.root, tuple(units), done, *stored_prompts(ctx))


def _teacher_desk(ctx: RunContext) -> DeskLink:
    """Return the desk of a run whose teacher calls cost money.

    Raises:
        UserError: there is a cap on money and no price.
    """
    t = ctx.settings.teacher
    check_budget(t, price_of(t))
    return DeskLink(Governor(limits_of(t, spent_usd(ctx))))


def _teaching(ctx: RunContext, total: int, done: int) -> Teaching:
    t = ctx.settings.teacher
    price = price_of(t)
    return Teaching(total, done, t.max_usd, priced=price is not None and price != FREE)


def _watch(
    ctx: RunContext, waiting: int | None = None, **stages: StageRows
) -> Callable[[DeskStatus], None]:
    """Return what exports the desk's counts; `waiting` drafts waited for the teacher before."""
    figures = GenerationFigures(ctx.settings.run.name, stages, waiting)
    return lambda status: export(figures.of(status))


def _post(ctx: RunContext, base_url: str, desk: DeskLink) -> TeacherPost:
    return TeacherPost(
        base_url=base_url,
        root=ctx.store.root,
        folder=ctx.folders.refinements,
        journal_folder=journal_folder(ctx),
        index=read_index(ctx.store),
        exchange=desk.exchange,
        count=desk.counter("teacher"),
        reuse_refusals=not ctx.retry_failed,
        regenerate=ctx.settings.curation.leakage == "regenerate",
    )


def _done(ctx: RunContext, folder: str, kind: type[Record]) -> KeyIndex:
    """Return the rows of a stage that need no work: made, or failed for good."""
    made = read_rows(ctx.store, folder).of(kind)
    failures = {} if ctx.retry_failed else read_failures(ctx.store, folder, made)
    return joined([made, key_set(key for key, f in failures.items() if f.permanent)])


def _num_drafts(ctx: RunContext) -> int:
    prompts = read_rows(ctx.store, split_folder(ctx.folders.prompts, "train")).of(Prompt)
    return len(prompts) * ctx.settings.sampling.num_drafts


def _require_all(asked: int, made: KeyIndex, failures: dict[str, Failure], what: str) -> None:
    """Refuse to call a stage finished whose rows do not add up, or that made none."""
    missing = asked - len(made) - len(failures)
    if missing:
        raise UserError(
            f"{missing} of {asked} {what} were neither made nor failed: the same command tries them"
        )
    if not len(made):
        commonest = next(iter(failures.values()), None)
        detail = f"; for example {commonest.row_id}: {commonest.detail}" if commonest else ""
        raise UserError(f"no {what} could be made: {count_reasons(failures)}{detail}")
