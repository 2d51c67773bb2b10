"""Which rows brought an engine down: what to run again, how small, and what to give up on.

An engine that dies takes with it every row in flight, and says nothing about which one it was. So a
batch that was lost runs again alone; if the engine dies again, in quarters, and quarters of these,
until the chunk that kills holds one row. A row alone that has brought `max_attempts` engines down
is poison. Everything here is arithmetic on counts of deaths; `attempts` keeps the counts.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PARTS = 4  # a poison row among 64 is alone after three deaths more


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """Rows `start` up to, not including, `stop` of a batch."""

    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        """Rows in the chunk."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """What is left to do with a batch that was lost before. Each row is in exactly one part."""

    chunks: tuple[Chunk, ...]  # to run one after the other, nothing else in the engine
    poison: tuple[int, ...]  # rows to give up on


def plan_chunks(num_rows: int, deaths: Mapping[Chunk, int], max_attempts: int) -> ChunkPlan:
    """Plan the next attempt at a batch.

    The smallest chunks come first: where the engine is likely to die, little is lost with it.

    Args:
        num_rows: of the batch.
        deaths: engines that died while a chunk had them to itself.
        max_attempts: engines that one row may bring down.
    """
    chunks: list[Chunk] = []
    poison: list[int] = []
    open_chunks = [Chunk(0, num_rows)]
    while open_chunks:
        chunk = open_chunks.pop()
        if chunk.num_rows == 1 and deaths.get(chunk, 0) >= max_attempts:
            poison.append(chunk.start)
        elif chunk.num_rows == 1 or chunk not in deaths:
            chunks.append(chunk)
        else:
            open_chunks.extend(split(chunk))
    ordered = sorted(chunks, key=lambda chunk: (chunk.num_rows, chunk.start))
    return ChunkPlan(tuple(ordered), tuple(sorted(poison)))


def split(chunk: Chunk) -> list[Chunk]:
    """Return a chunk of two rows or more in up to four parts."""
    size = -(-chunk.num_rows // _PARTS)
    return [
        Chunk(start, min(start + size, chunk.stop))
        for start in range(chunk.start, chunk.stop, size)
    ]


def max_deaths(num_rows: int, max_attempts: int) -> int:
    """Return the most engines that one poison row of a batch can bring down.

    One beside others, one for each size of chunk that holds it, and its attempts alone.
    """
    deaths = 1 + max_attempts
    while num_rows > 1:
        deaths += 1
        num_rows = -(-num_rows // _PARTS)
    return deaths


def batch_name(row_ids: Sequence[str]) -> str:
    """Return the name of a batch: the same rows in the same order have the same."""
    text = "\n".join(row_ids).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:24]


def marker_name(chunk: Chunk, attempt: int) -> str:
    """Return the name under which an attempt at a chunk is on record while it runs."""
    return f"{chunk.start}-{chunk.stop}-{attempt}"


def count_deaths(markers: Sequence[str]) -> dict[Chunk, int]:
    """Return the attempts that never ended, by chunk, from the names of their markers."""
    deaths: dict[Chunk, int] = {}
    for marker in markers:
        start, stop, _ = map(int, marker.split("-"))
        chunk = Chunk(start, stop)
        deaths[chunk] = deaths.get(chunk, 0) + 1
    return deaths
