"""What a critique tells the student about the refinement, in nats a token: pure.

The student reads the refinement's tokens, those that training puts loss on, in three contexts: no
critique (`cgd_no_critique`), the draft's own (`cgd`), and the critique of another prompt's draft,
which is the control: it has the form of a critique and nothing to say. The gain is
log p(refinement | prompt, draft, critique) - log p(refinement | prompt, draft), a token.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from cgd_ray.audit.summary import Figure, mean
from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.mixing import ranked
from cgd_ray.examples.objectives import Chain, build_example
from cgd_ray.examples.transforms import donors, spoilt
from cgd_ray.records import Example, Failure

GAIN = "gain/v1"  # new with any change of what is read

# Which critique stands before a target: with prompt and draft, and alone (`audit/alone.py`).
Context = Literal["none", "own", "another's", "own alone", "another's alone"]
CONTEXTS: tuple[Context, ...] = ("none", "own", "another's")
ALONE: tuple[Context, ...] = ("own alone", "another's alone")
NUM_PARTS = 10  # of a refinement, in the plot of its entropy


@dataclass(frozen=True, slots=True)
class TargetReading:
    """How the student reads one target in one context: a refinement, or its final answer alone."""

    draft_id: str
    context: Context  # which critique it had before it
    log_ps: tuple[float, ...]  # T target tokens: log p of each, given all before it, in nats
    entropies: tuple[float, ...]  # T: of the distribution that each was read from, in nats

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("draft_id", pa.string(), nullable=False),
            pa.field("context", pa.string(), nullable=False),
            pa.field("log_ps", pa.list_(pa.float32()), nullable=False),
            pa.field("entropies", pa.list_(pa.float32()), nullable=False),
        ]
    )

    @property
    def key(self) -> str:
        """Which chain's target, and in which context."""
        return f"{self.draft_id} {self.context}"


@dataclass(frozen=True, slots=True)
class Probe:
    """One target to be read in one context."""

    draft_id: str
    context: Context
    example: Example

    @property
    def key(self) -> str:
        """The key of its reading."""
        return f"{self.draft_id} {self.context}"


def probes(
    chains: Sequence[Chain], number: int, tokenizer: ChatTokenizer, max_tokens: int, seed: int
) -> list[list[Probe]]:
    """Return the readings of a random sample of chains, by chain.

    A larger sample holds a smaller one. Chains are passed over that have no donor from another
    prompt, whose donor says the same word for word, or that the student cannot read as a whole.

    Args:
        chains: to draw from.
        number: most chains.
        tokenizer: the student's.
        max_tokens: the longest that the student can read.
        seed: of the run.

    Returns:
        At most `number` lists, each with one probe a context, in the order of `CONTEXTS`.
    """
    given = donors(chains, seed)
    found: list[list[Probe]] = []
    for chain in ranked(chains, f"{seed}/audit"):
        if len(found) == number:
            break
        donor = given.get(chain.draft.id)
        probed = _probed(chain, donor, tokenizer, max_tokens, seed) if donor else None
        if probed:
            found.append(probed)
    return found


def _probed(
    chain: Chain, donor: str, tokenizer: ChatTokenizer, max_tokens: int, seed: int
) -> list[Probe] | None:
    other = spoilt(chain, "shuffled", donor, seed)
    if other is None or other.critique.text == chain.critique.text:
        return None
    made = [
        build_example("cgd_no_critique", chain, tokenizer, max_tokens),
        build_example("cgd", chain, tokenizer, max_tokens),
        build_example("cgd", other, tokenizer, max_tokens, transform="shuffled"),
    ]
    examples = [example for example in made if not isinstance(example, Failure)]
    if len(examples) < len(CONTEXTS):
        return None
    return [Probe(chain.draft.id, c, e) for c, e in zip(CONTEXTS, examples, strict=True)]


def gain_figures(readings: Iterable[TargetReading], seed: int = 0) -> tuple[Figure, ...]:
    """Return gains and entropies: means over rows of a row's mean over tokens.

    Args:
        readings: of rows, in whatever contexts; rows without all of `CONTEXTS` do not count.
        seed: of the bootstrap over rows.
    """
    rows = by_row(readings, CONTEXTS)
    log_p = {c: np.array([np.mean(row[c].log_ps) for row in rows]) for c in CONTEXTS}
    entropy = {c: np.array([np.mean(row[c].entropies) for row in rows]) for c in CONTEXTS}
    own, other = log_p["own"] - log_p["none"], log_p["another's"] - log_p["none"]
    return (
        mean("gain, own critique", "nats", own.tolist(), seed),
        mean("gain, another's critique", "nats", other.tolist(), seed),
        mean("gain, own less another's", "nats", (own - other).tolist(), seed),
        mean("entropy, no critique", "nats", entropy["none"].tolist(), seed),
        mean("entropy, own critique", "nats", entropy["own"].tolist(), seed),
        mean("entropy, another's critique", "nats", entropy["another's"].tolist(), seed),
        mean("entropy, own less none", "nats", (entropy["own"] - entropy["none"]).tolist(), seed),
    )


def entropy_by_part(
    readings: Iterable[TargetReading], seed: int = 0
) -> dict[Context, tuple[Figure, ...]]:
    """Return, by context, the mean entropy in each tenth of the refinements.

    A row counts once in a part, with the mean over its tokens there; a refinement of fewer tokens
    than parts has none in some of them.
    """
    rows = by_row(readings, CONTEXTS)
    return {
        context: tuple(
            mean(f"part {part}", "nats", list(_in_part(rows, context, part)), seed)
            for part in range(NUM_PARTS)
        )
        for context in CONTEXTS
    }


def _in_part(
    rows: Sequence[Mapping[Context, TargetReading]], context: Context, part: int
) -> Iterator[float]:
    for row in rows:
        entropies = row[context].entropies
        edges = [round(p * len(entropies) / NUM_PARTS) for p in (part, part + 1)]
        if edges[0] < edges[1]:
            yield float(np.mean(entropies[slice(*edges)]))


def by_row(
    readings: Iterable[TargetReading], contexts: Sequence[Context]
) -> list[dict[Context, TargetReading]]:
    """Return the readings of each row that has all of some contexts, in the order of their ids."""
    rows: dict[str, dict[Context, TargetReading]] = {}
    for reading in readings:
        if reading.context in contexts:
            rows.setdefault(reading.draft_id, {})[reading.context] = reading
    return [row for _, row in sorted(rows.items()) if len(row) == len(contexts)]
