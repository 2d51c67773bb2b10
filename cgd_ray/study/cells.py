"""The trainings of a study: arms x matches x seeds, each an ordinary run with overrides. Pure."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cgd_ray.study.arms import Arm
from cgd_ray.study.budgets import ArmData, matched_steps
from cgd_ray.study.settings import Match
from cgd_ray.training.order import steps_per_epoch


@dataclass(frozen=True, slots=True)
class Cell:
    """One training of one arm."""

    arm: str
    match: Match
    seed: int
    overrides: tuple[str, ...]  # of the study's run file, all of them

    @property
    def label(self) -> str:
        """As people read it."""
        return f"{self.arm}, {self.match.replace('_', ' ')} matched, seed {self.seed}"

    def run_name(self, study: str) -> str:
        """Return a name for the run that trains it: what is at work on one does not bar another."""
        name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{study}-{self.arm}-{self.match}-{self.seed}")
        return name[-64:].lstrip("._-")


@dataclass(frozen=True, slots=True)
class Reference:
    """What the others are matched to."""

    arm: str
    data: ArmData
    num_steps: int
    batches_per_step: int


def step_overrides(match: Match, arm: Arm, data: ArmData, reference: Reference) -> tuple[str, ...]:
    """Return the settings that train an arm for what the reference spends; none for itself."""
    if arm.name == reference.arm:
        return ()
    per_step = reference.batches_per_step
    steps = matched_steps(match, data, reference.data, reference.num_steps, per_step)
    epochs = -(-steps // steps_per_epoch(data.num_batches, per_step))
    return f"train.num_epochs={epochs}", f"train.max_steps={steps}"


def cells_of(
    match: Match,
    arms: Mapping[str, tuple[str, ...]],
    seeds: Sequence[int],
) -> list[Cell]:
    """Return the cells of one match, seed by seed, so that a study that stops has whole ones.

    Args:
        match: of all of them.
        arms: every override of each trained arm but the seed.
        seeds: of training.
    """
    return [
        Cell(arm, match, seed, (*overrides, f"train.seed={seed}"))
        for seed in seeds
        for arm, overrides in arms.items()
    ]


def command(verb: str, run_file: str, overrides: Sequence[str]) -> str:
    """Return what a reader types to get one cell's figures again."""
    return shlex.join(["cgd", verb, run_file, *overrides])
