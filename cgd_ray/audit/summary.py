"""Audit rows -> figures with intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cgd_ray.audit.rows import AuditRow
from cgd_ray.evaluation.statistics import accuracy_interval, resampled_means

_NUM_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure and its 95 % interval; all None where no row tells."""

    name: str
    unit: Literal["share", "words", "nats"]  # shares lie between 0 and 1
    value: float | None
    low: float | None
    high: float | None
    num_rows: int  # that it is of


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """What a run's critiques are worth."""

    num_chains: int
    num_with_reference: int
    num_drafts_right: int
    figures: tuple[Figure, ...]

    def figure(self, name: str) -> Figure:
        """Return the figure of that name."""
        return next(figure for figure in self.figures if figure.name == name)


def summarise(rows: Sequence[AuditRow], seed: int = 0) -> AuditSummary:
    """Return the figures of all rows: shares with Wilson's intervals, means with bootstrap ones.

    Args:
        rows: of one run, in a fixed order.
        seed: of the bootstrap.
    """
    known = [row for row in rows if row.draft_correct is not None]
    wrong = [row for row in known if not row.draft_correct]
    right = [row for row in known if row.draft_correct]
    said = [row for row in known if row.verdict is not None]
    places = [row.answer_position for row in known if row.answer_new]
    figures = (
        share("draft right", (bool(r.draft_correct) for r in known)),
        share("refinement right", (bool(r.refinement_correct) for r in known)),
        share("fix rate", (bool(r.refinement_correct) for r in wrong)),
        share("harm rate", (not r.refinement_correct for r in right)),
        share("says a verdict", (r.verdict is not None for r in rows)),
        share("verdict accuracy", (says_right(r) == r.draft_correct for r in said)),
        share("answer stated", (bool(r.answer_stated) for r in known)),
        share("answer leaked", (bool(r.answer_new) for r in known)),
        mean("leak position", "share", [p for p in places if p is not None], seed),
        mean("specificity", "share", [r.specificity for r in rows], seed),
        share("exact duplicate", (r.duplicate == "exact" for r in rows)),
        share("near duplicate", (r.duplicate == "near" for r in rows)),
        share("refinement speaks of draft", (r.speaks_of_draft for r in rows)),
        mean("draft length", "words", [r.num_draft_words for r in rows], seed),
        mean("critique length", "words", [r.num_critique_words for r in rows], seed),
        mean("refinement length", "words", [r.num_refinement_words for r in rows], seed),
    )
    return AuditSummary(len(rows), len(known), len(right), figures)


def says_right(row: AuditRow) -> bool:
    """Return whether the critique of a row calls the draft right."""
    return row.verdict == "right"


def share(name: str, flags: Iterable[bool]) -> Figure:
    """Return the share of rows for which something holds."""
    found = list(flags)
    if not found:
        return Figure(name, "share", None, None, None, 0)
    interval = accuracy_interval(found)
    return Figure(name, "share", interval.mean, interval.low, interval.high, len(found))


def mean(
    name: str, unit: Literal["share", "words", "nats"], values: Sequence[float], seed: int
) -> Figure:
    """Return a mean over rows with its bootstrap interval; without one for a single row."""
    if not values:
        return Figure(name, unit, None, None, None, 0)
    middle = float(np.mean(values))
    if len(values) == 1:
        return Figure(name, unit, middle, None, None, 1)
    means = resampled_means(values, seed, _NUM_RESAMPLES)
    low, high = np.quantile(means, [0.025, 0.975])
    return Figure(name, unit, middle, float(low), float(high), len(values))
