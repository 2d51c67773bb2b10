"""The artefacts of a study's cells -> what the study found."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cgd_ray.evaluation.drift import has_reviser_phrase
from cgd_ray.pipeline.compare import Evaluated, read_evaluated
from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.stages import finished
from cgd_ray.plan import student_shape
from cgd_ray.study.arms import BASE, Arm
from cgd_ray.study.budgets import ArmData, generation_flops, teacher_calls, training_flops
from cgd_ray.study.cells import Cell, command
from cgd_ray.study.contrasts import Runs, contrasts, estimate
from cgd_ray.study.results import ArmResult, Contrast, Costs, CurvePoint, TaskResult
from cgd_ray.study.settings import Match
from cgd_ray.training.metrics import StepMetrics, read_metrics


@dataclass(frozen=True, slots=True)
class DoneCell:
    """A cell whose student is trained and evaluated."""

    cell: Cell
    ctx: RunContext
    data: ArmData  # one pass of what it was trained on


@dataclass(frozen=True, slots=True)
class Reading:
    """One arm under one match, read from the store."""

    arm: Arm
    cells: tuple[DoneCell, ...]  # empty for the base
    runs: tuple[Evaluated, ...]

    @property
    def names(self) -> str:
        """The folders of scores, as `cgd compare` takes a side."""
        return ",".join(run.name for run in self.runs)


def read_match(
    match: Match, arms: Sequence[Arm], done: Sequence[DoneCell], reference: str, run_file: str
) -> tuple[ArmResult, ...]:
    """Return the results of one match; arms without a finished cell are left out.

    Args:
        match: whose.
        arms: in the order of the study.
        done: all finished cells of this match.
        reference: the arm that is compared with all others.
        run_file: for the commands.
    """
    readings = [reading for arm in arms if (reading := _reading(arm, done))]
    by_name = {reading.arm.name: reading for reading in readings}
    if not done:
        return ()
    tasks = list(readings[-1].runs[0].setups)
    base, its = by_name.get(BASE), by_name.get(reference)
    over_base = {n: (base, reading) for n, reading in by_name.items() if base and n != BASE}
    under = {n: (reading, its) for n, reading in by_name.items() if its and n != reference}
    contrasted = [{task: _between(pairs, task) for task in tasks} for pairs in (over_base, under)]
    return tuple(
        ArmResult(
            arm=reading.arm.name,
            match=match,
            what=reading.arm.what,
            seeds=tuple(done.cell.seed for done in reading.cells),
            tasks=tuple(
                _task(reading, task, *(found[task].get(reading.arm.name) for found in contrasted))
                for task in tasks
            ),
            costs=_costs(reading.cells) if reading.cells else None,
            curve=_curve(reading.cells),
            commands=tuple(command("run", run_file, d.cell.overrides) for d in reading.cells),
        )
        for reading in readings
    )


def _reading(arm: Arm, done: Sequence[DoneCell]) -> Reading | None:
    own = tuple(d for d in done if d.cell.arm == arm.name)
    if arm.trained:
        runs = [_evaluated(d.ctx, d.ctx.folders.scores) for d in own]
    else:
        runs = [_evaluated(done[0].ctx, done[0].ctx.folders.base_scores)] if done else []
    return Reading(arm, own, tuple(runs)) if runs else None


def _evaluated(ctx: RunContext, folder: str) -> Evaluated:
    # As the run file says it, so that a command can be typed where the study was.
    return read_evaluated(f"{ctx.settings.run.root}/{folder}", ctx.store, folder)


def _between(pairs: Mapping[str, tuple[Reading, Reading]], task: str) -> dict[str, Contrast]:
    """Return the second of each pair less its first."""
    first: dict[str, Runs] = {name: _verdicts(a, task) for name, (a, _) in pairs.items()}
    second: dict[str, Runs] = {name: _verdicts(b, task) for name, (_, b) in pairs.items()}
    commands = {n: shlex.join(["cgd", "compare", a.names, b.names]) for n, (a, b) in pairs.items()}
    return contrasts(first, second, commands)


def _verdicts(reading: Reading, task: str) -> Runs:
    return [run.verdicts(task) for run in reading.runs]


def _task(reading: Reading, task: str, over: Contrast | None, under: Contrast | None) -> TaskResult:
    scores = [score for run in reading.runs for score in run.scores[task]]
    runs = _verdicts(reading, task)
    return TaskResult(
        task=task,
        metric=reading.runs[0].setups[task].metric,
        num_prompts=len(runs[0]),
        accuracy=estimate(runs),
        by_seed=tuple(fmean(fmean(v) for v in run.values()) for run in runs),
        tokens_per_answer=fmean(score.num_tokens for score in scores),
        reviser_share=fmean(has_reviser_phrase(score.response) for score in scores),
        over_base=over,
        under_reference=under,
    )


def _costs(cells: Sequence[DoneCell]) -> Costs:
    ctx, data = cells[0].ctx, cells[0].data
    s = ctx.settings
    steps = [read_metrics(d.ctx.store, d.ctx.folders.checkpoint) for d in cells]
    tokens = fmean(sum(m.num_tokens for m in run) for run in steps)
    drafts = finished(ctx, "drafts") or {}
    # Without a critique among its calls, an arm could have done without drafts.
    needed = "critique" in teacher_calls(s.examples.objective, s.examples.prompt_only_share)
    drafted = data.num_chains / drafts["made"] if needed else 0.0
    parameters = _num_parameters(ctx)
    return Costs(
        num_chains=data.num_chains,
        examples=tokens * data.num_examples / data.num_tokens,
        steps=fmean(len(run) for run in steps),
        train_tokens=tokens,
        target_tokens=fmean(sum(m.num_targets for m in run) for run in steps),
        teacher_tokens=data.teacher_tokens,
        usd=data.teacher_usd,
        drafting_flops=parameters and generation_flops(parameters, drafts["tokens"]) * drafted,
        training_flops=parameters and training_flops(parameters, round(tokens)),
        drafting_worker_s=drafts["seconds"] * s.sampling.min_replicas * drafted,
        training_worker_s=fmean(sum(m.seconds for m in run) for run in steps) * s.train.max_workers,
    )


def _num_parameters(ctx: RunContext) -> float | None:
    shape = student_shape(ctx.settings.student.model)
    return shape.num_parameters if shape else ctx.settings.student.num_parameters


def _curve(cells: Sequence[DoneCell]) -> tuple[CurvePoint, ...]:
    runs = [read_metrics(d.ctx.store, d.ctx.folders.checkpoint) for d in cells]
    points: list[CurvePoint] = []
    tokens = 0.0
    for at in zip(*runs, strict=False):
        here: tuple[StepMetrics, ...] = at
        tokens += fmean(m.num_tokens for m in here)
        points.append(CurvePoint(here[0].step, tokens, fmean(m.loss for m in here)))
    return tuple(points)
