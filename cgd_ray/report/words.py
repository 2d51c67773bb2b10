"""Numbers and findings as people write them."""

import math

from cgd_ray.report.data import Evaluation

_SPACE = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with one decimal: 0.391 is "39.1 %"."""
    return f"{100 * fraction:.1f}{_SPACE}%"


def points(fraction: float) -> str:
    """Return a difference of fractions as signed percentage points: 0.258 is "+25.8"."""
    value = round(100 * fraction, 1)
    sign = "+" if value > 0 else _MINUS if value < 0 else ""
    return f"{sign}{abs(value):.1f}"


def probability(p: float) -> str:
    """Return a p value: "p = 0.012", or "p < 0.001" below that."""
    return f"p{_SPACE}<{_SPACE}0.001" if p < 0.001 else f"p{_SPACE}={_SPACE}{p:.3f}"


def duration(seconds: float) -> str:
    """Return a time in the two largest units that matter: "42.3 s", "12 min 3 s", "1 h 12 min"."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}{_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_SPACE}min {rest}{_SPACE}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,}{_SPACE}h {minutes}{_SPACE}min"


def scientific(value: float) -> str:
    """Return a small number such as a learning rate: 1e-05 is "1 x 10⁻⁵" with a proper sign."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    mantissa = mantissa.removesuffix(".0")
    times = f"{mantissa}{_SPACE}\N{MULTIPLICATION SIGN}{_SPACE}"
    return f"{times}10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def plural(count: int, noun: str) -> str:
    """Return "1 row" or "1,024 rows"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def difference_words(evaluation: Evaluation) -> str:
    """Return the paired difference, its interval and its p value."""
    difference = evaluation.difference
    interval = f"{points(difference.low)} to {points(difference.high)}"
    return (
        f"{points(difference.mean)} points "
        f"(95{_SPACE}% interval {interval}, {probability(difference.p)})"
    )


def result_sentence(evaluation: Evaluation | None) -> str:
    """Return the run's result in one or two sentences of plain words."""
    if evaluation is None:
        return "This run has not been evaluated: there is no accuracy to report yet."
    base, student = evaluation.base, evaluation.student
    found = (
        f"The student answers {percent(student.accuracy)} of "
        f"{plural(student.num_prompts, 'test prompt')} right, "
        f"the base model {percent(base.accuracy)}: "
        f"a difference of {difference_words(evaluation)}."
    )
    if evaluation.difference.significant:
        return found
    return f"{found} The interval includes zero: the difference is not significant."
