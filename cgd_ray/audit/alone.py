"""What a critique alone, without prompt and draft, tells of the answer, in nats a token: pure.

A critique should say what to redo, and only someone with prompt and draft can then do it. So the
student reads the refinement's final answer behind the critique alone, and, as the control, behind
another prompt's critique, which tells how answers look and not which it is. The difference is
log p(answer | critique) - log p(answer | another's critique), a token: far above 0, the critique
gives the answer away.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from cgd_ray.audit.gain import ALONE, Context, Probe, TargetReading, by_row
from cgd_ray.audit.summary import Figure, mean
from cgd_ray.evaluation.answers import extract_answer
from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.objectives import Chain
from cgd_ray.examples.transforms import donors
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Example

TEMPLATE = "critique_alone/v1"

_SLOT = "{critique}"
_REQUEST = (
    "A teacher wrote this about a student's answer to a problem that is not shown here:\n\n"
    + _SLOT
    + "\n\nWhat is the final answer to the problem? Write the answer alone."
)


def build_alone_messages(critique: str) -> list[Message]:
    """Return the one-turn chat that asks for the answer to a problem which is not in it."""
    before, _, after = _REQUEST.partition(_SLOT)
    return [{"role": "user", "content": before + critique + after}]


def alone_probes(
    chains: Sequence[Chain],
    chosen: Collection[str],
    tokenizer: ChatTokenizer,
    max_tokens: int,
    seed: int,
) -> list[Probe]:
    """Return what is read of the chains that information gain is read of.

    Chains are passed over whose refinement has no final answer that can be found, or that are too
    long.

    Args:
        chains: those that `gain.probes` drew from: each is given the same other critique.
        chosen: the draft ids of those that it drew.
        tokenizer: the student's.
        max_tokens: the longest that the student can read.
        seed: of the run.

    Returns:
        Two for each chain that is not passed over, in the order of `ALONE`.
    """
    given = donors(chains, seed)
    return [
        probe
        for chain in chains
        if chain.draft.id in chosen
        for probe in _probed(chain, given[chain.draft.id], tokenizer, max_tokens)
    ]


def _probed(
    chain: Chain, donor: str, tokenizer: ChatTokenizer, max_tokens: int
) -> tuple[Probe, ...]:
    answer = extract_answer(chain.refinement.text)
    if answer is None:
        return ()
    critiques: dict[Context, str] = dict(zip(ALONE, (chain.critique.text, donor), strict=True))
    made = tuple(
        Probe(chain.draft.id, context, _example(chain.draft.id, critique, answer, tokenizer))
        for context, critique in critiques.items()
    )
    fits = all(len(probe.example.input_ids) <= max_tokens for probe in made)
    return made if fits else ()


def _example(draft_id: str, critique: str, answer: str, tokenizer: ChatTokenizer) -> Example:
    ids, num_context = tokenizer.encode_example(build_alone_messages(critique), answer)
    mask = (0,) * num_context + (1,) * (len(ids) - num_context)
    return Example(f"{draft_id}#critique_alone", "critique_alone", tuple(ids), mask)


def alone_figures(readings: Iterable[TargetReading], seed: int = 0) -> tuple[Figure, ...]:
    """Return log-probabilities of the answers: means over rows of a row's mean over tokens.

    Args:
        readings: of rows, in whatever contexts; rows without both of `ALONE` do not count.
        seed: of the bootstrap over rows.
    """
    rows = by_row(readings, ALONE)
    own, other = (np.array([np.mean(row[c].log_ps) for row in rows]) for c in ALONE)
    return (
        mean("answer, own critique alone", "nats", own.tolist(), seed),
        mean("answer, another's alone", "nats", other.tolist(), seed),
        mean("answer, own less another's", "nats", (own - other).tolist(), seed),
    )
