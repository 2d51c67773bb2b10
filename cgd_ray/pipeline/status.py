"""`cgd status`: what a run has come to, read from its artefacts alone. Writes nothing.

A finished stage is read from its summary, one under way from its commits, whose names and sums tell
all that is shown: no row is read.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from cgd_ray.evaluation.setup import Setup
from cgd_ray.keys import joined
from cgd_ray.lease import Holder, last_holder, lease_folder
from cgd_ray.noise import say
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.names import PAGE
from cgd_ray.pipeline.prompts import split_folder
from cgd_ray.pipeline.reading import reading
from cgd_ray.pipeline.spending import journal_folder
from cgd_ray.pipeline.stages import STAGES, Stage, finished, folder_of
from cgd_ray.records import (
    CuratedRow,
    Draft,
    Example,
    Failure,
    Prompt,
    Record,
    Refinement,
    Score,
)
from cgd_ray.settings import Settings
from cgd_ray.shards import StageRows, read_records, read_rows
from cgd_ray.store import Store, StoreError
from cgd_ray.teacher.journal import read_usage
from cgd_ray.teacher.prices import price_of, tokens_usd
from cgd_ray.training.metrics import StepMetrics, read_recent, tokens_per_second
from cgd_ray.training.order import num_steps
from cgd_ray.watching.status import (
    OwnerStatus,
    RunStatus,
    StageStatus,
    State,
    TrainingStatus,
    status_page,
)

_RECENT_FILES = 10  # of training metrics, a few seconds each
_STATE = re.compile(r"/states/step-(\d+)-[^/]+/MANIFEST\.json$")


def status(settings: Settings, command: Sequence[str], json: bool) -> None:
    """Print what a run has come to.

    Args:
        settings: of the run.
        command: the run file and overrides, as the user gave them.
        json: print one JSON object instead of the page.

    Raises:
        UserError: the store or a prompt file cannot be read.
    """
    found = read_status(settings)
    say(_as_json(found) if json else status_page(found, command))


def read_status(settings: Settings) -> RunStatus:
    """Return what a run has come to.

    Raises:
        UserError: the store or a prompt file cannot be read.
    """
    try:
        with reading(settings) as ctx:
            return _read(ctx)
    except StoreError:
        if not settings.local.s3_server:
            raise
    with reading(settings) as ctx:  # the run has just ended, and its server with it
        return _read(ctx)


def _read(ctx: RunContext) -> RunStatus:
    s = ctx.settings
    holder = last_holder(ctx.store, lease_folder(s.run.name))
    alive = holder is not None and holder.alive
    summaries = {stage.key: finished(ctx, stage.key) for stage in STAGES}
    left = [stage.key for stage in STAGES if summaries[stage.key] is None]
    at_work = left[0] if left and alive else None
    stages = tuple(_stage(ctx, stage, summaries, at_work) for stage in STAGES)
    page = ctx.work_dir / s.run.name / PAGE
    return RunStatus(
        run=s.run.name,
        root=s.run.root,
        round=ctx.round,
        rounds=s.run.rounds,
        owner=_owner(holder) if holder else None,
        stages=stages,
        training=_training(ctx, summaries),
        scores=_scores(summaries["scores"]),
        report=str(page) if summaries["report"] is not None and page.is_file() else None,
        next_verb=None if alive else "run" if left else "serve",
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """Rows and tokens of a stage."""

    done: int | None = None
    expected: int | None = None
    failed: int | None = None
    rejected: int | None = None
    tokens: int | None = None
    usd: float | None = None
    unit: str = "rows"


_Summaries = dict[str, Summary | None]


def _stage(
    ctx: RunContext, stage: Stage, summaries: _Summaries, at_work: str | None
) -> StageStatus:
    summary, folder = summaries[stage.key], folder_of(ctx, stage.key)
    if summary is not None:
        state: State = "done"
        counts, changed_s = _DONE[stage.key](summary), _age(ctx.store, f"{folder}/COMPLETE")
    else:
        changed_s = _begun_age(ctx, stage.key)
        begun = changed_s is not None
        # Beside the first that is not finished, the teacher may be at work on its first rows.
        working = stage.key == at_work or (begun and at_work is not None)
        state = "at work" if working else "begun" if begun else "waiting"
        counts = _UNDER_WAY[stage.key](ctx, summaries) if begun else _Counts()
    return StageStatus(
        name=stage.name,
        state=state,
        verb=stage.verb,
        folder=folder,
        seconds=summary.get("seconds") if summary else None,
        changed_s=changed_s,
        **asdict(counts),
    )


def _lost(summary: Summary, name: str = "failed") -> int:
    return sum(summary[name].values())


def _teacher_done(s: Summary) -> _Counts:
    tokens = s["input_tokens"] + s["output_tokens"]
    return _Counts(s["refined"], s["asked"], _lost(s), None, tokens, s["usd"])


def _training_done(s: Summary) -> _Counts:
    return _Counts(s["steps"], s["steps"], tokens=s["tokens"], unit="steps")


def _scores_done(s: Summary) -> _Counts:
    asked = sum(2 * task["num_problems"] * task["num_samples"] for task in s["tasks"])
    return _Counts(asked, asked)


_DONE: dict[str, Callable[[Summary], _Counts]] = {
    "prompts": lambda s: _Counts(s["train"] + s["test"], None, _lost(s)),
    "drafts": lambda s: _Counts(s["made"], s["asked"], _lost(s), None, s["tokens"]),
    "refinements": _teacher_done,
    "curated": lambda s: _Counts(s["kept"], s["asked"], None, _lost(s, "rejected")),
    "examples": lambda s: _Counts(s["made"], s["asked"], _lost(s), None, s["tokens"]),
    "checkpoint": _training_done,
    "scores": _scores_done,
    "report": lambda _: _Counts(),
}


def _prompts_now(ctx: RunContext, _: _Summaries) -> _Counts:
    splits = [
        read_rows(ctx.store, split_folder(ctx.folders.prompts, split))
        for split in ("train", "test")
    ]
    made = sum(len(rows.of(Prompt)) for rows in splits)
    return _Counts(made, None, sum(len(rows.of(Failure)) for rows in splits))


def _drafts_now(ctx: RunContext, summaries: _Summaries) -> _Counts:
    rows = read_rows(ctx.store, ctx.folders.drafts)
    tokens = rows.total("num_tokens", Draft)
    made, expected = len(rows.of(Draft)), _num_drafts(ctx, summaries)
    return _Counts(made, expected, _failed(rows, Draft), None, tokens)


def _num_drafts(ctx: RunContext, summaries: _Summaries) -> int | None:
    """Return how many drafts there are, or will be as long as none fails."""
    drafts, prompts = summaries["drafts"], summaries["prompts"]
    if drafts:
        return drafts["made"]
    return prompts["train"] * ctx.settings.sampling.num_drafts if prompts else None


def _teacher_now(ctx: RunContext, summaries: _Summaries) -> _Counts:
    """Return the teacher's rows, and the tokens of all answers that are paid."""
    rows = read_rows(ctx.store, ctx.folders.refinements)
    used, price = read_usage(ctx.store, journal_folder(ctx)), price_of(ctx.settings.teacher)
    tokens = (used.num_input_tokens, used.num_cached_tokens, used.num_output_tokens)
    return _Counts(
        done=len(rows.of(Refinement)),
        expected=_num_drafts(ctx, summaries),
        failed=_failed(rows, Refinement),
        tokens=used.num_input_tokens + used.num_output_tokens,
        usd=tokens_usd(price, *tokens) if price else None,
    )


def _curated_now(ctx: RunContext, summaries: _Summaries) -> _Counts:
    teacher = summaries["refinements"]
    made = len(read_rows(ctx.store, ctx.folders.curated).of(CuratedRow))
    return _Counts(made, teacher["refined"] if teacher else None)


def _examples_now(ctx: RunContext, _: _Summaries) -> _Counts:
    rows = read_rows(ctx.store, ctx.folders.examples)
    return _Counts(len(rows.of(Example)), None, _failed(rows, Example))


def _training_now(ctx: RunContext, summaries: _Summaries) -> _Counts:
    steps = read_recent(ctx.store, ctx.folders.checkpoint, 1)
    return _Counts(steps[-1].step if steps else 0, _steps(ctx, summaries), unit="steps")


def _scores_now(ctx: RunContext, _: _Summaries) -> _Counts:
    rows = read_rows(ctx.store, ctx.folders.scores)
    setups = read_records(ctx.store, ctx.folders.scores, Setup).values()
    asked = sum(2 * setup.num_problems * setup.num_samples for setup in setups)
    return _Counts(len(rows.of(Score)), asked, _failed(rows, Score))


_UNDER_WAY: dict[str, Callable[[RunContext, _Summaries], _Counts]] = {
    "prompts": _prompts_now,
    "drafts": _drafts_now,
    "refinements": _teacher_now,
    "curated": _curated_now,
    "examples": _examples_now,
    "checkpoint": _training_now,
    "scores": _scores_now,
    "report": lambda _, __: _Counts(),
}


def _failed(rows: StageRows, kind: type[Record]) -> int:
    """Return the failed rows of which no later attempt made anything."""
    failed, made = rows.of(Failure), rows.of(kind)
    return len(joined([made, failed])) - len(made)


def _begun_age(ctx: RunContext, key: str) -> float | None:
    """Return how long ago a stage that is not finished made something; None: it has not begun."""
    folder = folder_of(ctx, key)
    below = {
        "prompts": [f"{folder}/{split}/commits/" for split in ("train", "test")],
        "refinements": [f"{folder}/commits/", f"{journal_folder(ctx)}/"],
        "checkpoint": [f"{folder}/metrics/", f"{folder}/states/"],
    }.get(key, [f"{folder}/commits/"])
    ages = [age for prefix in below if (age := _age(ctx.store, prefix)) is not None]
    return min(ages, default=None)


def _age(store: Store, prefix: str) -> float | None:
    return min((entry.age_s for entry in store.list(prefix)), default=None)


def _owner(holder: Holder) -> OwnerStatus:
    state = "gone" if holder.released else "dead" if holder.dead else "silent"
    owner = holder.owner
    return OwnerStatus(
        "alive" if holder.alive else state,
        owner.host,
        owner.pid,
        owner.since,
        round(holder.silent_s, 1),
        holder.lease_s,
    )


def _training(ctx: RunContext, summaries: _Summaries) -> TrainingStatus | None:
    steps = read_recent(ctx.store, ctx.folders.checkpoint, _RECENT_FILES)
    if not steps:
        return None
    summary, last = summaries["checkpoint"], steps[-1]
    rate, targets = tokens_per_second(steps), _targets_per_second(steps)
    if summary:
        rate = summary["tokens_per_second"]
        targets = rate * summary["target_tokens"] / max(1, summary["tokens"])
    found = [
        _STATE.search(entry.key) for entry in ctx.store.list(f"{ctx.folders.checkpoint}/states/")
    ]
    saved = max((int(match[1]) for match in found if match), default=None)
    total = _steps(ctx, summaries)
    return TrainingStatus(last.step, total, last.loss, rate, targets, last.mfu, saved)


def _targets_per_second(steps: Sequence[StepMetrics]) -> float:
    return sum(m.num_targets for m in steps) / (sum(m.seconds for m in steps) or 1.0)


def _steps(ctx: RunContext, summaries: _Summaries) -> int | None:
    examples, t = summaries["examples"], ctx.settings.train
    if examples is None:
        return None
    return num_steps(examples["packed_batches"], t.batches_per_step, t.num_epochs, t.max_steps)


def _scores(summary: Summary | None) -> str | None:
    if summary is None:
        return None
    base, student = (summary[model]["accuracy"] for model in ("base", "student"))
    return f"base {base:.1%}, student {student:.1%}: {summary['in_words']}"


def _as_json(status: RunStatus) -> str:
    return json.dumps({**asdict(status), "changed_s": status.changed_s}, indent=1)
