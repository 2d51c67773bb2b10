"""The arms that a study can name: the paper's baselines and its ablations, as settings. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cgd_ray.errors import UserError

BASE = "base"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train on the shared chains; the base arm is not trained at all."""

    name: str
    overrides: tuple[str, ...]  # of the study's run, such as examples.objective=cft
    what: str  # a line for people

    @property
    def trained(self) -> bool:
        """Whether there is anything to train."""
        return self.name != BASE


def _objective(name: str, what: str) -> Arm:
    return Arm(name, (f"examples.objective={name}",), what)


def _spoilt(name: str, transform: str, what: str) -> Arm:
    chosen = ("examples.objective=cgd", f"examples.critique_transform={transform}")
    return Arm(name, chosen, what)


READY_MADE = {
    arm.name: arm
    for arm in (
        Arm(BASE, (), "the student as it came, untrained"),
        _objective("sft", "x -> y: the data's own solutions"),
        _objective("distilled_sft", "x -> y^: standard distillation"),
        _objective("cft", "x, y' -> c: Critique Fine-Tuning"),
        _objective("cgd", "x, y', c -> y^: the method"),
        _objective("cgd_no_critique", "x, y' -> y^"),
        _objective("cgd_no_draft", "x, c -> y^"),
        _spoilt("shuffled_critique", "shuffled", "cgd with the critique of another prompt's draft"),
        _spoilt("generic_critique", "generic", "cgd with one sentence for all drafts"),
        _spoilt("truncated_critique", "truncated", "cgd with the first half of each critique"),
        _spoilt("flipped_verdict", "verdict_flipped", "cgd with verdicts turned round"),
        _spoilt("wrong_step", "wrong_step", "cgd with another step named"),
        _spoilt("random_critique", "random_text", "cgd with random words, as many"),
        Arm(
            "cgd_half_prompt_only",
            ("examples.objective=cgd", "examples.prompt_only_share=0.5"),
            "cgd, and as many plain x -> y^ rows",
        ),
        Arm(
            "cgd_wrong_drafts",
            ("examples.objective=cgd", "curation.require_wrong_draft=true"),
            "cgd on wrong drafts alone",
        ),
        Arm(
            "cgd_leaks_masked",
            ("examples.objective=cgd", "curation.leakage=mask"),
            "cgd with leaked answers hidden in the critique",
        ),
        Arm(
            "cgd_leaks_regenerated",
            ("examples.objective=cgd", "curation.leakage=regenerate"),
            "cgd with critiques asked for again where they leak",
        ),
        Arm(
            "cgd_leaks_dropped",
            ("examples.objective=cgd", "curation.leakage=drop"),
            "cgd without the rows whose critique leaks",
        ),
    )
}


def chosen_arms(
    names: Sequence[str], own: Mapping[str, Sequence[str]], reference: str
) -> tuple[Arm, ...]:
    """Return the arms of a study in its order, the base first.

    Args:
        names: as the study lists them.
        own: overrides of arms that the study itself defines, by name.
        reference: the arm that the others are matched to and compared with.

    Raises:
        UserError: an arm is unknown or named twice, or the reference is not a trained arm.
    """
    known = READY_MADE | {n: Arm(n, tuple(o), "defined by the study") for n, o in own.items()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"arms: {', '.join(unknown)} is not known: name one of {', '.join(READY_MADE)}, or "
            "define it in [own_arms]"
        )
    if len(set(names)) < len(names):
        raise UserError(f"arms names one twice: {', '.join(names)}")
    if reference not in names or reference == BASE:
        raise UserError(f"reference={reference} must be one of the trained arms of the study")
    return tuple(known[name] for name in sorted(names, key=lambda name: name != BASE))
