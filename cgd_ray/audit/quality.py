"""What can be told of critiques by counting words: how specific, how long, how often the same."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cgd_ray.curation.duplicates import NearDuplicates
from cgd_ray.curation.words import words

COMMON_SHARE = 0.25  # of the other critiques: a word that so many have is nobody's own
NEAR = 0.8  # Jaccard similarity of word triples from which two critiques are near duplicates


@dataclass(frozen=True, slots=True)
class Corpus:
    """How many critiques each word stands in."""

    num_critiques: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Which earlier critique says the same."""

    kind: Literal["exact", "near"]
    of: str  # its draft id


def corpus(critiques: Iterable[str]) -> Corpus:
    """Return the words of all critiques of a run."""
    counts: Counter[str] = Counter()
    number = 0
    for critique in critiques:
        counts.update(_different(critique))
        number += 1
    return Corpus(number, counts)


def specificity(critique: str, prompt: str, draft: str, corpus: Corpus) -> float:
    """Return how much of a critique is about this very draft, 0 to 1.

    The share of its different words and numbers that stand in the prompt or the draft too, and in
    less than `COMMON_SHARE` of the other critiques. Case and punctuation do not count.

    Args:
        critique: one of the corpus.
        prompt: what was asked.
        draft: what is criticised.
        corpus: of all critiques.
    """
    ours = _different(critique)
    own = ours & (_different(prompt) | _different(draft))
    limit = COMMON_SHARE * (corpus.num_critiques - 1)
    # A corpus of one has no other critiques, so that nothing in it is common.
    specific = [w for w in own if corpus.num_critiques == 1 or corpus.counts[w] - 1 < limit]
    return round(len(specific) / len(ours), 3) if ours else 0.0


def find_duplicates(critiques: Sequence[tuple[str, str]]) -> list[Duplicate | None]:
    """Return for each critique which earlier one says the same; None if none does.

    Args:
        critiques: draft ids and texts, in order.
    """
    first: dict[str, str] = {}  # by normal form
    known = NearDuplicates(NEAR)
    found: list[Duplicate | None] = []
    for draft_id, text in critiques:
        normal = " ".join(words(text))
        if normal in first:
            found.append(Duplicate("exact", first[normal]))
            continue
        first[normal] = draft_id
        alike = known.find_or_keep(text, draft_id)
        found.append(Duplicate("near", alike) if alike else None)
    return found


def _different(text: str) -> set[str]:
    """Return the words and numbers of a text, without arithmetic signs."""
    return {unit for unit in words(text) if unit[0].isalnum()}
