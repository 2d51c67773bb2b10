"""Near duplicates: texts that share most of their words, found by MinHash."""

from rensa import RMinHash, RMinHashDeduplicator  # pyright: ignore[reportAttributeAccessIssue]

from cgd_ray.curation.words import runs, words

_RUN_WORDS = 3
_NUM_PERMUTATIONS, _SEED = 128, 42  # the estimate's standard error is at most 0.045
# Candidates share a band of the sketch. With so many bands 87 % of the pairs at 0.5, 99 % of those
# at 0.6 and all above are candidates; each is then held against the threshold.
_NUM_BANDS = 32


class NearDuplicates:
    """The texts taken so far, as MinHash sketches of their word triples.

    Args:
        threshold: Jaccard similarity, 0 to 1, from which two texts are alike.
    """

    def __init__(self, threshold: float) -> None:
        self._index = RMinHashDeduplicator(
            threshold, _NUM_PERMUTATIONS, use_lsh=True, num_bands=_NUM_BANDS, seed=_SEED
        )

    def keep(self, text: str, name: str) -> None:
        """Take a text, whatever it is like."""
        self._index.add(name, _sketch(text))

    def find_or_keep(self, text: str, name: str) -> str | None:
        """Return the name of the first text that is like this one; take it if there is none."""
        sketch = _sketch(text)
        alike = self._index.get_duplicates(sketch)
        if alike:
            return min(alike)
        self._index.add(name, sketch)
        return None


def _sketch(text: str) -> RMinHash:
    sketch = RMinHash(num_perm=_NUM_PERMUTATIONS, seed=_SEED)
    sketch.update(runs(words(text), _RUN_WORDS))
    return sketch
