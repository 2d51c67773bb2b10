"""What generation still has to do, in units of a few rows: pure.

A unit names rows of a committed file. Workers read it themselves, so the driver of a million
prompts holds their ids and no text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cgd_ray.keys import KeyIndex
from cgd_ray.sampling.draft import draft_id
from cgd_ray.shards import ShardFile


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows `start` to `stop` of a committed file."""

    file: str
    start: int
    stop: int


def prompt_units(
    files: Iterable[ShardFile], num_drafts: int, done: KeyIndex, num_prompts: int
) -> list[Unit]:
    """Return the units of prompts of which some draft is still to be made.

    Args:
        files: committed prompts.
        num_drafts: drafts a prompt.
        done: draft ids that were made or have failed for good.
        num_prompts: most prompts in a unit.
    """

    def wanted(prompt_ids: Sequence[str]) -> bool:
        ids = [draft_id(p, i) for p in prompt_ids for i in range(num_drafts)]
        return None in done.find(ids)

    return [
        Unit(file.key, start, min(start + num_prompts, len(file.ids)))
        for file in files
        for start in range(0, len(file.ids), num_prompts)
        if wanted(file.ids[start : start + num_prompts])
    ]


def draft_units(files: Iterable[ShardFile], done: KeyIndex, num_drafts: int) -> list[Unit]:
    """Return the units of drafts of which some still wait for the teacher.

    Args:
        files: committed drafts.
        done: ids of drafts that were refined or have failed for good.
        num_drafts: most drafts in a unit.
    """
    return [
        Unit(file.key, start, min(start + num_drafts, len(file.ids)))
        for file in files
        for start in range(0, len(file.ids), num_drafts)
        if None in done.find(file.ids[start : start + num_drafts])
    ]


def rows_per_shard(num_rows: int) -> int:
    """Return how many taught rows go into one committed shard.

    Small runs see their rows land soon; larger ones spare objects. What is paid is safe in the
    journal either way.
    """
    return min(256, max(16, num_rows // 100))
