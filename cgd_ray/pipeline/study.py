"""`cgd study`: every arm and seed of a study on one shared set of chains, resumable to its page.

The driver makes what all arms share and sizes each arm's training to the same budget; the cells
are processes on its cluster. What is finished is found by its folder, whoever made it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.hardware import hardware
from cgd_ray.noise import say, terminal
from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.pipeline.report import package_versions
from cgd_ray.pipeline.run import held
from cgd_ray.pipeline.stages import finished, run_generation, run_stage
from cgd_ray.pipeline.study_cells import Launch, Outcome, run_cells
from cgd_ray.pipeline.study_results import DoneCell, read_match
from cgd_ray.pipeline.teacher_address import check_teacher
from cgd_ray.progress import clock
from cgd_ray.records import Critique, Refinement
from cgd_ray.runtime import ray_session, session_address, use_gpu
from cgd_ray.settings import load
from cgd_ray.shards import read_rows
from cgd_ray.study.arms import Arm, chosen_arms
from cgd_ray.study.budgets import (
    BY_CHAINS,
    ArmData,
    TeacherCost,
    arm_cost,
    matched_chains,
    teacher_calls,
)
from cgd_ray.study.cells import Cell, Reference, cells_of, command, step_overrides
from cgd_ray.study.figure import figure
from cgd_ray.study.page import render_page
from cgd_ray.study.results import FailedCell, StudyResult, to_json
from cgd_ray.study.settings import StudySettings
from cgd_ray.study.table import table
from cgd_ray.teacher.prices import Price, price_of, tokens_usd
from cgd_ray.training.order import num_steps

_CALLS = {"critique": Critique, "refinement": Refinement}


@dataclass(frozen=True, slots=True)
class Study:
    """A study that is under way."""

    settings: StudySettings
    run_file: str
    overrides: tuple[str, ...]  # of all arms
    arms: tuple[Arm, ...]
    command: str
    ctx: RunContext  # of the run without an arm

    def context(self, overrides: Sequence[str]) -> RunContext:
        """Return the context of the study's run with these overrides, in the same store."""
        ctx = open_context(load(self.run_file, overrides), self.ctx.store)
        return replace(ctx, progress=self.ctx.progress)

    @property
    def folder(self) -> Path:
        """Where the page and the logs go."""
        return self.ctx.work_dir / "studies" / self.settings.name


def study(
    settings: StudySettings, run_file: str, overrides: Sequence[str], typed: str
) -> StudyResult:
    """Run what is missing of a study; write its page, `study.json`, and print its tables.

    Args:
        settings: of the study.
        run_file: that all arms start from.
        overrides: of that run, from the command line, after the study's.
        typed: the command, for the page.

    Raises:
        UserError: settings do not fit, or cells failed; the page is of those that did not.
    """
    arms = chosen_arms(settings.arms, settings.own_arms, settings.reference)
    given = (*settings.overrides, *overrides)
    with ray_session(load(run_file, given).run.num_cpus):
        settings, given = _scaled(settings, given)
        with held(load(run_file, given)) as ctx:
            under_way = Study(settings, run_file, given, arms, typed, ctx)
            datas = _shared(under_way)
            cells = _cells(under_way, datas)
            failed = _run_missing(under_way, [cell for cell, _ in cells])
            result = _result(under_way, cells, failed)
            _write(under_way, result)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed, first {failed[0].label}: "
            f"{failed[0].reason}; the same command tries them again"
        )
    return result


def _scaled(
    settings: StudySettings, overrides: tuple[str, ...]
) -> tuple[StudySettings, tuple[str, ...]]:
    scale = settings.scale
    if not use_gpu("auto") or scale == type(scale)():
        return settings, overrides
    print("a GPU: the study runs as [scale] says", file=terminal())
    seeds = scale.seeds or settings.seeds
    return settings.model_copy(update={"seeds": seeds}), (*overrides, *scale.overrides)


def _shared(study: Study) -> dict[str, ArmData]:
    """Make what all arms share, and each arm's training data; return what the latter hold."""
    if not study.ctx.settings.local.tutor and finished(study.ctx, "refinements") is None:
        check_teacher(study.ctx.settings.teacher)
    datas: dict[str, ArmData] = {}
    for arm in study.arms:
        ctx = study.context([*study.overrides, *arm.overrides])
        if finished(ctx, "prompts") is None:
            run_stage(ctx, "prompts")
        if finished(ctx, "drafts") is None or finished(ctx, "refinements") is None:
            run_generation(ctx)
        if arm.trained:
            datas[arm.name] = _data(ctx)
    return datas


def _data(ctx: RunContext) -> ArmData:
    """Make an arm's examples; return what one pass over them holds."""
    for key in ("curated", "examples"):
        if finished(ctx, key) is None:
            run_stage(ctx, key)
    made, s = finished(ctx, "examples") or {}, ctx.settings
    taught = (finished(ctx, "refinements") or {})["refined"]
    num_chains = made["asked"] - made["prompt_only"]
    calls = teacher_calls(s.examples.objective, s.examples.prompt_only_share)
    tokens, usd = arm_cost(calls, _teacher_costs(ctx), num_chains / taught)
    return ArmData(num_chains, made["made"], made["packed_batches"], made["tokens"], tokens, usd)


def _teacher_costs(ctx: RunContext) -> dict[str, TeacherCost]:
    rows = read_rows(ctx.store, ctx.folders.refinements)
    price = price_of(ctx.settings.teacher)

    def cost(kind: type[Critique | Refinement], price: Price | None) -> TeacherCost:
        names = ("num_input_tokens", "num_cached_tokens", "num_output_tokens")
        given, cached, written = (rows.total(name, kind) for name in names)
        usd = tokens_usd(price, given, cached, written) if price else None
        return TeacherCost(given + written, usd)

    return {name: cost(kind, price) for name, kind in _CALLS.items()}


def _cells(study: Study, datas: Mapping[str, ArmData]) -> list[tuple[Cell, ArmData]]:
    """Return every cell of the study with one pass of its data."""
    cells: list[tuple[Cell, ArmData]] = []
    for match in study.settings.match:
        arms = {arm.name: arm for arm in study.arms if arm.trained}
        own, of_match = dict(datas), {n: (*study.overrides, *a.overrides) for n, a in arms.items()}
        if match in BY_CHAINS:
            for name, number in matched_chains(match, datas).items():
                if number < datas[name].num_chains:
                    of_match[name] = (*of_match[name], f"examples.max_chains={number}")
                    own[name] = _data(study.context(of_match[name]))
        reference = _reference(study, own[study.settings.reference])
        for name, arm in arms.items():
            extra = step_overrides(match, arm, own[name], reference)
            of_match[name] = (*of_match[name], *extra)
        made = cells_of(match, of_match, study.settings.seeds)
        cells += [(cell, own[cell.arm]) for cell in made]
    return cells


def _reference(study: Study, data: ArmData) -> Reference:
    arm = next(arm for arm in study.arms if arm.name == study.settings.reference)
    train = load(study.run_file, [*study.overrides, *arm.overrides]).train
    steps = num_steps(data.num_batches, train.batches_per_step, train.num_epochs, train.max_steps)
    return Reference(arm.name, data, steps, train.batches_per_step)


def _run_missing(study: Study, cells: Sequence[Cell]) -> list[FailedCell]:
    """Train and evaluate what is not finished; return the cells that failed."""
    todo: dict[str, Cell] = {}  # two matches can come to the same training
    for cell in cells:
        ctx = study.context(cell.overrides)
        if finished(ctx, "scores") is None:
            todo.setdefault(ctx.folders.scores, cell)
    _say(f"{len(cells)} cells, {len(todo)} trainings to do")
    failed: list[FailedCell] = []
    num_ended = 0

    def ended(outcome: Outcome) -> None:
        nonlocal num_ended
        num_ended += 1
        where = f"[{num_ended}/{len(todo)}] {outcome.cell.label}"
        if outcome.failure is not None:
            again = command("run", study.run_file, outcome.cell.overrides)
            failed.append(FailedCell(outcome.cell.label, outcome.failure, again))
            return _say(f"{where}: failed: {outcome.failure}")
        scores = finished(study.context(outcome.cell.overrides), "scores") or {}
        accuracy = "  ".join(
            f"{task['task']} {task['student']['accuracy']:.1%}" for task in scores["tasks"]
        )
        return _say(f"{where}: {accuracy}  ({clock(outcome.seconds)})")

    if todo:
        with _launch(study) as launch:
            at_once = study.settings.cells_at_once
            run_cells(list(todo.values()), launch, study.settings.name, at_once, ended)
    return failed


@contextmanager
def _launch(study: Study) -> Iterator[Launch]:
    # The study's own S3 server serves the cells: its address is in our environment.
    extra = ("local.s3_server=false",) if study.ctx.settings.local.s3_server else ()
    environment = {"RAY_ADDRESS": session_address()}
    yield Launch(study.run_file, extra, environment, study.folder / "logs")


def _result(
    study: Study, cells: Sequence[tuple[Cell, ArmData]], failed: Sequence[FailedCell]
) -> StudyResult:
    done = [
        DoneCell(cell, ctx, data)
        for cell, data in cells
        if finished(ctx := study.context(cell.overrides), "scores") is not None
    ]
    if not done:
        raise UserError(f"no cell of the study ended; first {failed[0].label}: {failed[0].reason}")
    s, curated = study.ctx.settings, finished(done[0].ctx, "curated") or {}
    found = [
        read_match(
            match,
            study.arms,
            [d for d in done if d.cell.match == match],
            study.settings.reference,
            study.run_file,
        )
        for match in study.settings.match
    ]
    return StudyResult(
        study=study.settings.name,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=study.command,
        hardware=hardware()[1],
        versions=dict(package_versions()),
        student=s.student.model,
        teacher=f"tutor (reveals: {s.local.tutor_reveal})" if s.local.tutor else s.teacher.model,
        prompts=s.prompts.train,
        reference=study.settings.reference,
        num_chains=curated["asked"],
        draft_accuracy=curated["drafts_right"] / curated["asked"],
        num_cells=len(cells),
        num_finished=len(done),
        arms=tuple(arm for arms in found for arm in arms),
        failed=tuple(failed),
    )


def _write(study: Study, result: StudyResult) -> None:
    study.folder.mkdir(parents=True, exist_ok=True)
    (study.folder / "study.json").write_bytes(to_json(result))
    page = study.folder / "study.html"
    page.write_text(render_page(result), encoding="utf-8")
    page.with_name("study.svg").write_text(figure(result), encoding="utf-8")
    say(table(result))
    say(f"page        {page}")
    say(f"figures     {page.with_name('study.json')}")


def _say(text: str) -> None:
    print(text, file=terminal(), flush=True)
