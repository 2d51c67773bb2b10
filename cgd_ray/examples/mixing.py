"""Which chains are used, give an extra plain x -> y^ example, or have their critiques spoilt."""

import hashlib
from collections.abc import Sequence

from cgd_ray.examples.objectives import Chain


def drawn_chains(chains: Sequence[Chain], number: int | None, seed: int) -> list[Chain]:
    """Return so many of the chains, in their order; all of them for None.

    A larger number keeps those of a smaller one.
    """
    return list(chains) if number is None else _drawn(chains, number, f"{seed}/chains")


def prompt_only_chains(chains: Sequence[Chain], share: float, seed: int) -> list[Chain]:
    """Return the chains that also give a plain example, so that those are `share` of all.

    With n chains there are n * share / (1 - share) of them, the ones with the lowest hash: a
    larger share keeps those of a smaller one.

    Args:
        chains: the chains that the objective uses.
        share: 0 to 0.5.
        seed: of the run.
    """
    return _drawn(chains, len(chains) * share / (1 - share), str(seed))


def spoilt_chains(chains: Sequence[Chain], share: float, seed: int) -> set[str]:
    """Return the draft ids of the `share` of chains whose critiques are spoilt.

    A larger share keeps those of a smaller one: a curve over shares adds rows, it redraws none.
    """
    return {chain.draft.id for chain in _drawn(chains, len(chains) * share, f"{seed}/spoilt")}


def ranked(chains: Sequence[Chain], salt: str) -> list[Chain]:
    """Return the chains in a random order that the salt decides: more chains keep those of fewer.

    Args:
        chains: in any order.
        salt: seed and purpose.
    """
    return sorted(chains, key=lambda c: hashlib.sha256(f"{salt}/{c.draft.id}".encode()).digest())


def _drawn(chains: Sequence[Chain], number: float, salt: str) -> list[Chain]:
    """Return that many chains, those with the lowest salted hash, in their order."""
    chosen = {chain.draft.id for chain in ranked(chains, salt)[: round(number)]}
    return [chain for chain in chains if chain.draft.id in chosen]
