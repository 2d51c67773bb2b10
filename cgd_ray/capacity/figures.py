"""What the arithmetic is fed: numbers with their kind and source. Pure.

What is measured of the run itself wins over what our benchmarks measured and over assumptions; what
the user gives wins over all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cgd_ray.capacity.nodes import PRICED_ON, PRICES
from cgd_ray.errors import UserError
from cgd_ray.settings import Settings

Kind = Literal["measured", "assumed", "given"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that the page depends on."""

    name: str
    value: float
    unit: str
    kind: Kind
    source: str


Figures = dict[str, Figure]

_RESULTS = "benchmarks/results"
# The medians of the result files; a test compares them.
_BENCHMARKS = (
    Figure(
        "platform_core_ms_a_draft",
        1.24,
        "ms of a core",
        "measured",
        f"{_RESULTS}/scale-2cpu-2026-11-22.json: 620 µs a row on 2 cores, 10^6 rows",
    ),
    Figure(
        "ray_share",
        0.967,
        "of the raw engine's speed",
        "measured",
        f"{_RESULTS}/sampling-2cpu-2026-11-22.json, on a CPU",
    ),
)
CPU_SAMPLER = Figure(
    "sampler_tokens_per_s",
    245.0,
    "tokens/s an engine",
    "measured",
    f"{_RESULTS}/sampling-2cpu-2026-11-22.json: SmolLM2-135M on 2 cores, through Ray",
)
CPU_TRAINER = Figure(
    "trainer_tokens_per_s",
    628.0,
    "tokens/s a worker",
    "measured",
    f"{_RESULTS}/train-speed-2cpu-2026-11-22.json: SmolLM2-135M on 2 cores",
)
_FIRST_TEMPLATE, _SECOND_TEMPLATE = 300, 100  # tokens that ask for a critique, a refinement


def standard_figures(settings: Settings) -> Figures:
    """Return what is known of any run: benchmarks and assumptions."""
    s, t = settings, settings.teacher
    prompt = 200.0
    draft = s.sampling.max_tokens / 2
    critique, refinement = t.critique_max_tokens / 4, t.refinement_max_tokens / 4
    first = _FIRST_TEMPLATE + prompt + draft
    asked = first if t.turns == 1 else 2 * first + critique + _SECOND_TEMPLATE
    whole = prompt + _context(s.examples.objective, draft, critique, refinement)
    plain = s.examples.prompt_only_share / (1 - s.examples.prompt_only_share)
    example = whole + plain * (prompt + refinement)
    assumed = [
        ("prompt_tokens", prompt, "tokens", "a paragraph"),
        ("draft_tokens", draft, "tokens", "half of sampling.max_tokens"),
        ("critique_tokens", critique, "tokens", "a quarter of teacher.critique_max_tokens"),
        ("refinement_tokens", refinement, "tokens", "a quarter of teacher.refinement_max_tokens"),
        ("teacher_input_tokens", asked, "tokens a draft", "prompt, draft, critique and templates"),
        ("teacher_cached_tokens", 0.0, "tokens a draft", "no discount for cached input"),
        ("drafted_share", 1.0, "of the drafts asked", "none fails"),
        ("refined_share", 1.0, "of the drafts", "none fails"),
        ("kept_share", 1.0, "of the refinements", "none is rejected"),
        ("example_tokens", example, "tokens a kept row", f"{_objective(s)}, of the above"),
        ("answer_tokens_per_s", 50.0, "tokens/s of one answer", "of the teacher, plus 1 s a call"),
        ("engine_share", 0.5, "of the GPU's data sheet", "reached by an engine; not measured"),
        ("mfu", 0.35, "of the GPU's data sheet", "reached by training; not measured"),
    ]
    found = [Figure(n, v, unit, "assumed", source) for n, v, unit, source in assumed]
    return {figure.name: figure for figure in (*found, *_BENCHMARKS)}


def _objective(settings: Settings) -> str:
    share = settings.examples.prompt_only_share
    also = f" with examples.prompt_only_share={share:g}" if share else ""
    return f"examples.objective={settings.examples.objective}{also}"


def _context(objective: str, draft: float, critique: float, refinement: float) -> float:
    return {
        "sft": refinement,
        "distilled_sft": refinement,
        "cft": draft + critique,
        "cgd": draft + critique + refinement,
        "cgd_no_critique": draft + refinement,
        "cgd_no_draft": critique + refinement,
    }[objective]


def price_figures(instances: Iterable[str], on_spot: Iterable[str]) -> Figures:
    """Return the prices of EC2 types, and of some of them on spot."""
    unit, source = "$ an hour", f"from memory, {PRICED_ON}, not checked"
    found = [
        Figure(f"usd.{name}", PRICES[name].on_demand, unit, "assumed", f"list price {source}")
        for name in instances
    ]
    found += [
        Figure(f"spot_usd.{name}", PRICES[name].spot, unit, "assumed", f"spot price {source}")
        for name in on_spot
    ]
    return {figure.name: figure for figure in found}


def with_figures(known: Mapping[str, Figure], more: Iterable[Figure]) -> Figures:
    """Return figures of which some are replaced, unless they were given."""
    result = dict(known)
    for figure in more:
        before = result.get(figure.name)
        if before is None or before.kind != "given":
            result[figure.name] = figure
    return result


def given_figures(texts: Sequence[str], known: Mapping[str, Figure]) -> list[Figure]:
    """Return what a user gives as `name=value`.

    Raises:
        UserError: a name is unknown, or a value is no number, or not above 0.
    """
    found: list[Figure] = []
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise UserError(f"--assume {text}: one of {', '.join(sorted(known))}, as name=value")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        may_be_nothing = name.endswith("_cached_tokens") or "usd." in name
        if not (0 < number < float("inf") or (number == 0 and may_be_nothing)):
            raise UserError(f"--assume {text}: '{value}' is not a number above 0")
        found.append(Figure(name, number, known[name].unit, "given", "--assume"))
    return found
