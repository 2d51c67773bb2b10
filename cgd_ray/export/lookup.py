"""Committed records by key, read a file at a time."""

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Generic

import pyarrow.parquet as pq

from cgd_ray.keys import KeyIndex, key_index
from cgd_ray.records import R, from_table
from cgd_ray.shards import ShardFile, committed_files
from cgd_ray.store import Store

_REMEMBERED_FILES = 8


class Lookup(Generic[R]):
    """The committed records of one kind. Memory: the keys, and a few files' records.

    A shard of one stage holds rows of few shards of the stage before, so that few files are read
    twice.
    """

    def __init__(self, store: Store, folder: str, kind: type[R]) -> None:
        self._store = store
        self._kind = kind
        self.files: list[ShardFile] = list(committed_files(store, folder, kind))
        pairs = ((key, number) for number, file in enumerate(self.files) for key in file.ids)
        self.index: KeyIndex = key_index(pairs)
        self._records = lru_cache(_REMEMBERED_FILES)(self._read)

    def find(self, keys: Sequence[str]) -> list[R | None]:
        """Return the record of each key; None where none is committed."""
        numbers = self.index.find(keys)
        return [
            None if number is None else self._records(number)[key]
            for key, number in zip(keys, numbers, strict=True)
        ]

    def first(self, number: int) -> list[R]:
        """Return the records of a file, without those that an earlier file has."""
        records = self._records(number)
        places = self.index.find(list(records))
        return [r for r, place in zip(records.values(), places, strict=True) if place == number]

    def _read(self, number: int) -> dict[str, R]:
        data = self._store.get(self.files[number].key)
        table = pq.read_table(io.BytesIO(data), schema=self._kind.SCHEMA)
        return {record.key: record for record in from_table(table, self._kind)}
