"""What an arm spends, and how long it is trained to spend the same as the reference. Pure.

Examples, steps and training tokens are spent by training: an arm is trained for more or fewer
steps. Teacher tokens and dollars are spent before: an arm gets more or fewer of the chains.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cgd_ray.errors import UserError
from cgd_ray.study.settings import Match
from cgd_ray.training.order import steps_per_epoch

# Whose calls an objective needs by itself. The refinement counts alone for distilled_sft, although
# ours was written with a critique in view: that favours the baseline.
_TEACHER_CALLS = {"sft": (), "distilled_sft": ("refinement",), "cft": ("critique",)}
_BOTH = ("critique", "refinement")
BY_CHAINS: tuple[Match, ...] = ("teacher_tokens", "usd")


@dataclass(frozen=True, slots=True)
class TeacherCost:
    """What the teacher's calls of one kind took, over all chains."""

    tokens: int  # input and output
    usd: float | None  # None: no price is known


@dataclass(frozen=True, slots=True)
class ArmData:
    """What one pass over an arm's training data holds."""

    num_chains: int
    num_examples: int  # prompt-only ones included
    num_batches: int  # packed
    num_tokens: int  # context and target
    teacher_tokens: float  # of the calls that the arm needs
    teacher_usd: float | None

    def spent(self, match: Match) -> float:
        """Return what the teacher got for these chains; 0 for an arm that needs none.

        Raises:
            UserError: dollars are asked for and no price is known.
        """
        if match == "teacher_tokens":
            return self.teacher_tokens
        if self.teacher_usd is None:
            raise UserError(
                "match=usd needs the teacher's price: set teacher.usd_per_million_input_tokens and "
                "teacher.usd_per_million_output_tokens in the study's overrides"
            )
        return self.teacher_usd


def teacher_calls(objective: str, prompt_only_share: float) -> tuple[str, ...]:
    """Return the kinds of teacher calls that training on an objective needs."""
    needed = _TEACHER_CALLS.get(objective, _BOTH)
    return _BOTH if prompt_only_share and needed == ("critique",) else needed


def arm_cost(
    calls: tuple[str, ...], costs: Mapping[str, TeacherCost], share: float
) -> tuple[float, float | None]:
    """Return teacher tokens and dollars (None: unknown) of a share of the chains.

    Args:
        calls: kinds that the arm needs.
        costs: of each kind, over all chains.
        share: of the chains that the arm uses, 0 to 1.
    """
    tokens = sum(costs[call].tokens for call in calls) * share
    prices = [costs[call].usd for call in calls]
    known = [usd for usd in prices if usd is not None]
    return tokens, sum(known) * share if len(known) == len(prices) else None


def matched_steps(
    match: Match, arm: ArmData, reference: ArmData, num_steps: int, batches_per_step: int
) -> int:
    """Return the optimiser steps in which an arm spends what the reference does in `num_steps`.

    Args:
        match: what is spent alike. By chains it is those that are matched, and the arm gets as many
            passes over its own as the reference over its.
        arm: one pass of the arm.
        reference: one pass of the reference.
        num_steps: of the reference.
        batches_per_step: packed batches in a step, of both.
    """
    own, its = (steps_per_epoch(d.num_batches, batches_per_step) for d in (arm, reference))
    passes = num_steps / its
    if match == "steps":
        return num_steps
    if match == "examples":
        passes *= reference.num_examples / arm.num_examples
    elif match == "train_tokens":
        passes *= reference.num_tokens / arm.num_tokens
    return max(1, round(passes * own))


def matched_chains(match: Match, arms: Mapping[str, ArmData]) -> dict[str, int]:
    """Return how many chains each arm may use so that all pay the teacher the same.

    The arm that pays least for all chains keeps them all; arms that pay nothing do too.

    Args:
        match: "teacher_tokens" or "usd".
        arms: one pass of each, over all chains.
    """
    spent = {name: data.spent(match) for name, data in arms.items()}
    paid = [cost for cost in spent.values() if cost > 0]
    budget = min(paid, default=0.0)
    return {
        name: max(1, int(data.num_chains * budget / spent[name] + 1e-9))
        if spent[name] > budget
        else data.num_chains
        for name, data in arms.items()
    }


def training_flops(num_parameters: float, num_tokens: int) -> float:
    """Return the floating-point operations of training on so many tokens: 6 a parameter and token.

    Source: Kaplan et al., 2020, arXiv 2001.08361, section 2.1; attention's own are left out.
    """
    return 6.0 * num_parameters * num_tokens


def generation_flops(num_parameters: float, num_tokens: int) -> float:
    """Return those of reading or writing so many tokens without training: 2 each."""
    return 2.0 * num_parameters * num_tokens
