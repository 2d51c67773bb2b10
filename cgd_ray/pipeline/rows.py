"""The two sources of generation's rows, as Ray Data actors: thin, and without Ray.

Each turns numbers of units into the rows of those units that are not done: prompts into what the
engine is asked, and stored drafts into what the teacher is asked.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.keys import KeyIndex
from cgd_ray.model_folders import on_this_node
from cgd_ray.pipeline.units import Unit
from cgd_ray.records import Draft, Prompt, from_table
from cgd_ray.sampling.requests import DraftOptions, draft_requests
from cgd_ray.sampling.writer import Count
from cgd_ray.shards import commit_shard
from cgd_ray.store import Store, open_store
from cgd_ray.student import chat_tokenizer
from cgd_ray.teacher.rows import teacher_rows

_REMEMBERED_FILES = 4


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Where prompts are, which units of them are to be drafted, and how."""

    root: str
    folder: str  # of the drafts: over-long prompts are failures there
    units: tuple[Unit, ...]
    done: KeyIndex  # draft ids
    tokenizer: str  # folder or Hugging Face id
    options: DraftOptions


class PromptRows:
    """Units of prompts -> rows for the engine.

    Args:
        source: of the prompts.
        count: is told the over-long ones.
    """

    def __init__(self, source: PromptSource, count: Count) -> None:
        self._source = source
        self._count = count
        self._store = open_store(source.root)
        self._tokenizer: ChatTokenizer = chat_tokenizer(on_this_node(source.tokenizer, source.root))
        self._read = _file_reader(self._store)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the engine's rows of the units whose numbers are in column `id`."""
        source = self._source
        prompts: list[Prompt] = []
        for unit in (source.units[number] for number in batch["id"].to_pylist()):
            table = self._read(unit.file).slice(unit.start, unit.stop - unit.start)
            prompts += from_table(table, Prompt)
        rows, refused = draft_requests(prompts, source.done, self._tokenizer, source.options)
        if refused:
            commit_shard(self._store, source.folder, refused)
            self._count(0, len(refused))
        return rows


@dataclass(frozen=True, slots=True)
class DraftSource:
    """Where stored drafts are, and which units of them wait for the teacher."""

    root: str
    units: tuple[Unit, ...]
    done: KeyIndex  # draft ids
    prompt_files: tuple[str, ...]
    prompts: KeyIndex  # prompt id -> place in `prompt_files`


class DraftRows:
    """Units of stored drafts -> rows for the teacher."""

    def __init__(self, source: DraftSource) -> None:
        self._source = source
        self._read = _file_reader(open_store(source.root))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the teacher's rows of the units whose numbers are in column `id`."""
        source = self._source
        drafts: list[Draft] = []
        for unit in (source.units[number] for number in batch["id"].to_pylist()):
            table = self._read(unit.file).slice(unit.start, unit.stop - unit.start)
            drafts += from_table(table, Draft)
        done = source.done.find([draft.id for draft in drafts])
        waiting = [draft for draft, known in zip(drafts, done, strict=True) if known is None]
        return teacher_rows(self._prompts_of(waiting), waiting)

    def _prompts_of(self, drafts: Sequence[Draft]) -> list[Prompt]:
        ids = [draft.prompt_id for draft in drafts]
        places = self._source.prompts.find(ids)
        found: dict[str, Prompt] = {}
        for place in sorted({place for place in places if place is not None}):
            for prompt in from_table(self._read(self._source.prompt_files[place]), Prompt):
                found[prompt.id] = prompt
        return [found[prompt_id] for prompt_id in ids]


def _file_reader(store: Store) -> Callable[[str], pa.Table]:
    """Return a reader of parquet files that remembers the last few: units are parts of them."""

    @lru_cache(_REMEMBERED_FILES)
    def read(key: str) -> pa.Table:
        return pq.read_table(io.BytesIO(store.get(key)))

    return read
