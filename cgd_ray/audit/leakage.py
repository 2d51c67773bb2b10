"""Does a critique give the answer away?

A critique states the reference if a value in it equals it, by the grader. That is a leak if the
answer is new: neither prompt nor draft states it. A critique that says "your 83 is right", or
that repeats an operand which happens to equal the answer, tells the student nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cgd_ray.audit.statements import Candidate, Span, candidates, parts_of
from cgd_ray.evaluation.grader_pool import GradeItem
from cgd_ray.evaluation.grading import Grade

MASK = "[hidden]"

GradeAll = Callable[[Sequence[GradeItem]], list[Grade]]


@dataclass(frozen=True, slots=True)
class Criticised:
    """What may state the answer of one row."""

    reference: str
    prompt: str
    draft: str
    critique: str


@dataclass(frozen=True, slots=True)
class Leak:
    """Whether and where one critique states the answer."""

    spans: tuple[Span, ...]  # of the critique's characters, in order, apart from each other
    new: bool  # it is stated, and neither prompt nor draft states it
    position: float | None  # of the first span, as a share of the critique; None: there is none

    @property
    def stated(self) -> bool:
        """Whether the critique states the answer at all."""
        return bool(self.spans)


def find_leaks(rows: Sequence[Criticised], grade_all: GradeAll) -> list[Leak]:
    """Return what each critique gives away.

    Args:
        rows: R of them, each with a reference that is not empty.
        grade_all: grades answers in order, as `GraderPool.grade_all`.

    Returns:
        R leaks.
    """
    in_critiques = _statements([(row.reference, row.critique) for row in rows], grade_all)
    stated = [row for row, spans in zip(rows, in_critiques, strict=True) if spans]
    sources = [(row.reference, text) for row in stated for text in (row.prompt, row.draft)]
    known = iter(_statements(sources, grade_all))
    leaks: list[Leak] = []
    for row, spans in zip(rows, in_critiques, strict=True):
        new = bool(spans) and not any([next(known), next(known)])
        position = round(spans[0][0] / len(row.critique), 3) if spans else None
        leaks.append(Leak(spans, new, position))
    return leaks


def masked(critique: str, spans: Iterable[Span]) -> str:
    """Return a critique with `MASK` in the place of each span.

    Args:
        critique: its text.
        spans: in order and apart from each other, as in a `Leak`.
    """
    pieces: list[str] = []
    end = 0
    for start, stop in spans:
        pieces += [critique[end:start], MASK]
        end = stop
    return "".join([*pieces, critique[end:]])


def _statements(pairs: Sequence[tuple[str, str]], grade_all: GradeAll) -> list[tuple[Span, ...]]:
    """Return where each text states its answer; nowhere unless it states all parts of it."""
    found = [[(p, candidates(p, text)) for p in parts_of(answer)] for answer, text in pairs]
    asked = {
        (part, candidate.value): None
        for parts in found
        for part, some in parts
        for candidate in some
        if not candidate.same
    }
    # In a box the value is the whole answer, whatever its text would be taken for.
    items = [GradeItem(part, f"\\boxed{{{value}}}") for part, value in asked]
    grades = zip(asked, grade_all(items), strict=True)
    equal = {pair for pair, grade in grades if grade.correct}

    def spans(part: str, some: Sequence[Candidate]) -> list[Span]:
        return [c.span for c in some if c.same or (part, c.value) in equal]

    by_part = [[spans(part, some) for part, some in parts] for parts in found]
    return [_joined(s for part in parts for s in part) if all(parts) else () for parts in by_part]


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans in order, those that overlap as one."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
