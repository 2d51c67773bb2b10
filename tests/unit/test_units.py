"""What is left to do, against a plain reading of the same files; and who reads it."""

import random
from pathlib import Path

import pyarrow as pa
import pytest

from cgd_ray.keys import key_set
from cgd_ray.pipeline.rows import DraftRows, DraftSource
from cgd_ray.pipeline.units import Unit, draft_units, prompt_units
from cgd_ray.records import Draft, Prompt
from cgd_ray.sampling.draft import draft_id
from cgd_ray.shards import ShardFile, commit_shard, committed_files
from cgd_ray.store import LocalStore
from cgd_ray.teacher.rows import read_teacher_rows
from tests.support.records import draft, prompt


def files(draw: random.Random, num_drafts: int = 0) -> list[ShardFile]:
    made = []
    for number in range(draw.randrange(1, 5)):
        ids = [f"{number}-{i}" for i in range(draw.randrange(1, 20))]
        if num_drafts:
            ids = [draft_id(i, d) for i in ids for d in range(num_drafts)]
        made.append(ShardFile(f"file{number}", "Prompt", tuple(ids), {}))
    return made


def covered(units: list[Unit], of: list[ShardFile]) -> list[str]:
    ids = {file.key: file.ids for file in of}
    return [key for unit in units for key in ids[unit.file][unit.start : unit.stop]]


@pytest.mark.parametrize("seed", range(30))
def test_units_hold_all_that_is_not_done_once_and_no_unit_is_idle(seed: int) -> None:
    draw = random.Random(seed)
    num_drafts, size = draw.randrange(1, 4), draw.randrange(1, 8)
    prompts = files(draw)
    keys = [draft_id(p, i) for f in prompts for p in f.ids for i in range(num_drafts)]
    done = set(draw.sample(keys, draw.randrange(len(keys) + 1)))
    units = prompt_units(prompts, num_drafts, key_set(done), size)
    found = covered(units, prompts)
    assert len(found) == len(set(found))
    assert {k for k in keys if k not in done} <= {
        draft_id(p, i) for p in found for i in range(num_drafts)
    }
    for unit in units:
        assert 0 < unit.stop - unit.start <= size
        mine = [draft_id(p, i) for p in covered([unit], prompts) for i in range(num_drafts)]
        assert not done.issuperset(mine)
    drafts = files(draw, num_drafts)
    keys = [key for file in drafts for key in file.ids]
    done = set(draw.sample(keys, draw.randrange(len(keys) + 1)))
    found = covered(draft_units(drafts, key_set(done), size), drafts)
    assert len(found) == len(set(found))
    assert set(keys) - done <= set(found)


def test_stored_drafts_find_their_prompts_wherever_they_are(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    for name in "abc":
        commit_shard(store, "prompts", [prompt(f"{name}{i}?", id=f"{name}{i}") for i in range(3)])
    made = [draft(f"of {p}", id=draft_id(p, 0), prompt_id=p) for p in ("b1", "a0", "c2", "a2")]
    commit_shard(store, "drafts", made)
    prompt_files = list(committed_files(store, "prompts", Prompt))
    done = key_set([draft_id("c2", 0)])
    from cgd_ray.keys import key_index

    source = DraftSource(
        root=store.root,
        units=tuple(draft_units(committed_files(store, "drafts", Draft), done, 2)),
        done=done,
        prompt_files=tuple(file.key for file in prompt_files),
        prompts=key_index((key, i) for i, file in enumerate(prompt_files) for key in file.ids),
    )
    numbers = pa.table({"id": list(range(len(source.units)))})
    rows = read_teacher_rows(DraftRows(source)(numbers))
    assert [(p.id, d.text) for p, d in rows] == [("b1", "of b1"), ("a0", "of a0"), ("a2", "of a2")]
