"""Training prompts that hold the text of evaluation prompts.

Two texts share a run of words (13, as in published practice) by chance rarely, and by copying
often. A training prompt is contaminated when it holds enough of one evaluation prompt's runs. A run
counts the less, the more evaluation prompts have it: a sentence that opens every problem of a set
says nothing about any of them. An evaluation prompt of fewer words must be equal as a whole.
"""

from collections import defaultdict
from dataclasses import dataclass

from cgd_ray.curation.words import runs, words


@dataclass(frozen=True, slots=True)
class Match:
    """The evaluation row that a text shares most with."""

    evaluation: str
    share: float
    num_runs: int
    run: str


class EvaluationIndex:
    """The runs of words of evaluation prompts; some 200 bytes each.

    Args:
        length: words of a run.
        min_share: share of an evaluation prompt that makes a text contaminated.
    """

    def __init__(self, length: int, min_share: float) -> None:
        self._length = length
        self._min_share = min_share
        self._names: list[str] = []
        self._texts: list[list[int]] = []  # the hashes of each evaluation prompt's runs
        self._totals: list[float] = []  # and their weights' sum, once all prompts are here
        self._holders: defaultdict[int, list[int]] = defaultdict(list)  # prompts by hash of run
        self._whole: dict[int, int] = {}  # short prompts by hash of all their words

    def __len__(self) -> int:
        """Return the number of evaluation prompts."""
        return len(self._names)

    def add(self, text: str, name: str) -> None:
        """Take an evaluation prompt."""
        units = words(text)
        number = len(self._names)
        self._names.append(name)
        hashes = [] if len(units) < self._length else _hashes(units, self._length)
        self._texts.append(hashes)
        for run in hashes:
            self._holders[run].append(number)
        if units and not hashes:
            self._whole.setdefault(hash(" ".join(units)), number)

    def find(self, text: str) -> Match | None:
        """Return the evaluation prompt that a text holds the most of; None if it is too little."""
        units = words(text)
        if len(units) < self._length:
            whole = " ".join(units)
            number = self._whole.get(hash(whole))
            return None if number is None else Match(self._names[number], 1.0, 1, whole)
        shared = {run for run in _hashes(units, self._length) if run in self._holders}
        weights: defaultdict[int, float] = defaultdict(float)
        for run in shared:
            for number in self._holders[run]:
                weights[number] += self._weight(run)
        if len(self._totals) < len(self._texts):
            self._totals = [sum(map(self._weight, hashes)) for hashes in self._texts]
        shares = {number: weight / self._totals[number] for number, weight in weights.items()}
        best = max(shares, key=lambda number: (round(shares[number], 9), -number), default=None)
        if best is None or shares[best] < self._min_share:
            return None
        return self._match(best, round(shares[best], 4), units, shared)

    def _match(self, number: int, share: float, units: list[str], shared: set[int]) -> Match:
        common = shared.intersection(self._texts[number])
        first = next(run for run in runs(units, self._length) if hash(run) in common)
        return Match(self._names[number], share, len(common), first)

    def _weight(self, run: int) -> float:
        return 1 / len(self._holders[run])


def _hashes(units: list[str], length: int) -> list[int]:
    """Return the hashes of a text's different runs, in order: 8 bytes a run, not its words."""
    return list(dict.fromkeys(hash(run) for run in runs(units, length)))
