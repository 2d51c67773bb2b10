"""`cgd study`: every arm and seed of a study on one shared set of chains, resumable to its page.

The driver makes what all arms share and sizes each arm's training to the same budget; the cells
are processes on its cluster. What is finished is found by its folder, whoever made it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.hardware import hardware
from cgd_ray.noise import say
from cgd_ray.pipeline.report import package_versions
from cgd_ray.pipeline.run import held, opened
from cgd_ray.pipeline.stages import finished, require
from cgd_ray.pipeline.study_cells import Launch, Outcome, run_cells
from cgd_ray.pipeline.study_plan import Study, plan_cells, share
from cgd_ray.pipeline.study_results import DoneCell, read_match
from cgd_ray.progress import Progress, clock
from cgd_ray.runtime import ray_session, session_address, use_gpu
from cgd_ray.settings import load
from cgd_ray.study.arms import chosen_arms
from cgd_ray.study.budgets import ArmData
from cgd_ray.study.cells import Cell, command
from cgd_ray.study.figure import figure
from cgd_ray.study.page import render_page
from cgd_ray.study.results import FailedCell, StudyResult, to_json
from cgd_ray.study.settings import ScaleSettings, StudySettings
from cgd_ray.study.table import table


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
        settings, given = scaled(settings, given)
        with held(load(run_file, given)) as ctx:
            under_way = Study(settings, run_file, given, arms, typed, ctx)
            datas = share(under_way)
            cells = plan_cells(under_way, datas)
            failed = _run_missing(under_way, [cell for cell, _ in cells])
            result = collect(under_way, cells, failed)
            write(under_way, result)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed, first {failed[0].label}: "
            f"{failed[0].reason}; the same command tries them again"
        )
    return result


def scaled(
    settings: StudySettings, overrides: tuple[str, ...]
) -> tuple[StudySettings, tuple[str, ...]]:
    """Return the study and its overrides as `[scale]` makes them where the session has a GPU."""
    scale = settings.scale
    if not use_gpu("auto") or scale == ScaleSettings():
        return settings, overrides
    Progress().say("a GPU: the study runs as [scale] says")
    seeds = scale.seeds or settings.seeds
    return settings.model_copy(update={"seeds": seeds}), (*overrides, *scale.overrides)


def _run_missing(study: Study, cells: Sequence[Cell]) -> list[FailedCell]:
    """Train and evaluate what is not finished; return the cells that failed."""
    todo: dict[str, Cell] = {}  # two matches can come to the same training
    for cell in cells:
        ctx = study.context(cell.overrides)
        if finished(ctx, "scores") is None:
            todo.setdefault(ctx.folders.scores, cell)
    progress = study.ctx.progress
    progress.say(f"{len(cells)} cells, {len(todo)} trainings to do")
    failed: list[FailedCell] = []
    num_ended = 0

    def ended(outcome: Outcome) -> None:
        nonlocal num_ended
        num_ended += 1
        where = f"[{num_ended}/{len(todo)}] {outcome.cell.label}"
        if outcome.failure is not None:
            again = command("run", study.run_file, outcome.cell.overrides)
            failed.append(FailedCell(outcome.cell.label, outcome.failure, again))
            return progress.say(f"{where}: failed: {outcome.failure}")
        scores = finished(study.context(outcome.cell.overrides), "scores") or {}
        accuracy = "  ".join(
            f"{task['task']} {task['student']['accuracy']:.1%}" for task in scores["tasks"]
        )
        return progress.say(f"{where}: {accuracy}  ({clock(outcome.seconds)})")

    def begun(cell: Cell, log: Path) -> None:
        progress.say(f"  {cell.label}: training ({log})")

    if todo:
        s = study.settings
        run_cells(list(todo.values()), _launch(study), s.name, s.cells_at_once, begun, ended)
    return failed


def _launch(study: Study) -> Launch:
    # The study's own S3 server serves the cells: its address is in our environment.
    extra = ("local.s3_server=false",) if study.ctx.settings.local.s3_server else ()
    environment = {"RAY_ADDRESS": session_address()}
    return Launch(study.run_file, extra, environment, study.folder / "logs")


def report(
    settings: StudySettings, run_file: str, overrides: Sequence[str], typed: str
) -> StudyResult:
    """Write the page and print the tables of the cells that are finished; run nothing.

    Args:
        settings: and the others, as `study` takes them.
        run_file: likewise.
        overrides: likewise.
        typed: likewise.

    Raises:
        UserError: no cell is finished.
    """
    arms = chosen_arms(settings.arms, settings.own_arms, settings.reference)
    given = (*settings.overrides, *overrides)
    with opened(load(run_file, given)) as ctx:
        seen = Study(settings, run_file, given, arms, typed, ctx)
        for arm in arms:
            require(seen.context([*given, *arm.overrides]), "examples" if arm.trained else "drafts")
        result = collect(seen, plan_cells(seen, share(seen)), ())
        write(seen, result)
    return result


def collect(
    study: Study, cells: Sequence[tuple[Cell, ArmData]], failed: Sequence[FailedCell]
) -> StudyResult:
    """Return what the finished cells found.

    Args:
        study: that is under way.
        cells: all of them, with one pass of their data.
        failed: those that did not end.

    Raises:
        UserError: none is finished.
    """
    done = [
        DoneCell(cell, ctx, data)
        for cell, data in cells
        if finished(ctx := study.context(cell.overrides), "scores") is not None
    ]
    if not done:
        why = f"; first {failed[0].label}: {failed[0].reason}" if failed else ""
        raise UserError(f"no cell of the study is finished{why}")
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


def write(study: Study, result: StudyResult) -> None:
    """Write page, figures and drawing; print the tables."""
    study.folder.mkdir(parents=True, exist_ok=True)
    (study.folder / "study.json").write_bytes(to_json(result))
    page = study.folder / "study.html"
    page.write_text(render_page(result), encoding="utf-8")
    page.with_name("study.svg").write_text(figure(result), encoding="utf-8")
    say(table(result))
    say(f"page        {page}")
    say(f"figures     {page.with_name('study.json')}")
