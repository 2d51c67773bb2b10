"""Which extra plain x -> y^ examples stand beside an objective's own."""

import hashlib
from collections.abc import Sequence

from cgd_ray.examples.objectives import Chain


def prompt_only_chains(chains: Sequence[Chain], share: float, seed: int) -> list[Chain]:
    """Return the chains that also give a plain example, so that those are `share` of all.

    With n chains there are n * share / (1 - share) of them, the ones with the lowest hash: a
    larger share keeps those of a smaller one.

    Args:
        chains: the chains that the objective uses.
        share: 0 to 0.5.
        seed: of the run.
    """
    number = round(len(chains) * share / (1 - share))
    ranked = sorted(chains, key=lambda c: hashlib.sha256(f"{seed}/{c.draft.id}".encode()).digest())
    chosen = {chain.draft.id for chain in ranked[:number]}
    return [chain for chain in chains if chain.draft.id in chosen]
