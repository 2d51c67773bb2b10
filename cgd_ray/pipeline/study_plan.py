"""What a study's cells are: shared artefacts, each arm's data, and steps at matched budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.pipeline.stages import finished, run_generation, run_stage
from cgd_ray.pipeline.teacher_address import check_teacher
from cgd_ray.records import Critique, Refinement
from cgd_ray.settings import load
from cgd_ray.shards import read_rows
from cgd_ray.study.arms import Arm
from cgd_ray.study.budgets import (
    BY_CHAINS,
    ArmData,
    TeacherCost,
    arm_cost,
    matched_chains,
    teacher_calls,
)
from cgd_ray.study.cells import Cell, Reference, cells_of, step_overrides
from cgd_ray.study.settings import StudySettings
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


def share(study: Study) -> dict[str, ArmData]:
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


def plan_cells(study: Study, datas: Mapping[str, ArmData]) -> list[tuple[Cell, ArmData]]:
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
