"""Shards of records, and the commits that make them count.

A shard is written under a name that no other attempt uses; then one small commit object is put
with create-only semantics. Readers trust commits alone and take each key once, so a writer may be
killed at any moment, retried, or run twice (design: "Shards are committed", reliability).
"""

import hashlib
import io
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from cgd_ray.keys import KeyIndex, joined, key_set
from cgd_ray.records import Failure, R, Record, from_table, to_table
from cgd_ray.store import MissingKey, Store, map_objects

COMPLETE = "COMPLETE.json"


class Keys(Protocol):
    """Anything that knows the keys of some rows: a dictionary, a set, a `KeyIndex`."""

    def __contains__(self, key: str, /) -> bool:
        """Return whether a row is among them."""
        ...


def commit_shard(store: Store, folder: str, records: Sequence[Record]) -> bool:
    """Write records, of any kinds, as one shard and commit it under a name made of their keys.

    Two attempts that made the same rows give one committed shard; an attempt that made what an
    earlier one failed at gives a second.

    Args:
        store: where to write.
        folder: the stage's folder.
        records: what the stage made, failures among it.

    Returns:
        False if another attempt had committed the same rows before.
    """
    unit = _unit_name(records)
    attempt = uuid.uuid4().hex[:12]
    files: list[dict[str, Any]] = []
    for kind in sorted({type(record) for record in records}, key=lambda k: k.__name__):
        chosen = [record for record in records if type(record) is kind]
        table = to_table(chosen, kind)
        data = parquet_bytes(table)
        key = f"{folder}/shards/{unit}-{attempt}-{kind.__name__.lower()}.parquet"
        store.put(key, data)
        ids = [record.key for record in chosen]
        file = {"key": key, "kind": kind.__name__, "ids": ids, "sums": _sums(table)}
        files.append({**file, "columns": _columns(chosen)})
    return store.put_new(f"{folder}/commits/{unit}.json", json.dumps({"files": files}).encode())


def _unit_name(records: Sequence[Record]) -> str:
    rows = sorted(f"{type(record).__name__} {record.key}" for record in records)
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _sums(table: pa.Table) -> dict[str, int]:
    """Return the totals of the integer columns, so that counting tokens reads no text."""
    names = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    return {name: sum(table[name].to_pylist()) for name in names}


def _columns(records: Sequence[Record]) -> dict[str, list[int]]:
    """Return the values that readers of the commit alone are to know of every row."""
    names: tuple[str, ...] = getattr(records[0], "COMMITTED", ())
    return {name: [getattr(record, name) for record in records] for name in names}


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A committed parquet file of one kind of record, as its commit describes it."""

    key: str
    kind: str
    ids: tuple[str, ...]  # keys of its rows
    sums: dict[str, int]  # totals of its integer columns
    columns: dict[str, list[int]] = field(default_factory=dict)  # what its kind lists in COMMITTED


def committed_files(store: Store, folder: str, *kinds: type[Record]) -> Iterator[ShardFile]:
    """Yield the committed files of a stage in commit order, of all kinds or of some."""
    wanted = {kind.__name__ for kind in kinds}
    commits = [entry.key for entry in store.list(f"{folder}/commits/")]
    for data in map_objects(store.get, commits):
        for file in json.loads(data)["files"]:
            if not wanted or file["kind"] in wanted:
                ids, columns = tuple(file["ids"]), file.get("columns", {})
                yield ShardFile(file["key"], file["kind"], ids, file["sums"], columns)


@dataclass(frozen=True, slots=True)
class StageRows:
    """The rows that a stage has committed, by kind, without their contents."""

    ids: dict[str, KeyIndex]
    sums: dict[str, dict[str, int]]  # totals of the integer columns; a row made twice counts twice

    def of(self, kind: type[Record]) -> KeyIndex:
        """Return the ids of the rows of one kind."""
        return self.ids.get(kind.__name__, key_set([]))

    def total(self, column: str, *kinds: type[Record]) -> int:
        """Return the total of a column over some kinds."""
        return sum(self.sums.get(kind.__name__, {}).get(column, 0) for kind in kinds)


def read_rows(store: Store, folder: str) -> StageRows:
    """Return what a stage has committed, from one reading of its commits."""
    parts: defaultdict[str, list[KeyIndex]] = defaultdict(list)
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for file in committed_files(store, folder):
        parts[file.kind].append(key_set(file.ids))
        sums[file.kind].update(file.sums)
    return StageRows(
        {kind: joined(found) for kind, found in parts.items()},
        {kind: dict(found) for kind, found in sums.items()},
    )


def read_records(store: Store, folder: str, kind: type[R]) -> dict[str, R]:
    """Return a stage's committed records of one kind by key, each once, in key order."""
    found: dict[str, R] = {}
    for table in read_tables(store, folder, kind):
        for record in from_table(table, kind):
            found.setdefault(record.key, record)
    return dict(sorted(found.items()))


def read_failures(store: Store, folder: str, *made: Keys) -> dict[str, Failure]:
    """Return the failures of rows that no later attempt made; permanent ones win."""
    found: dict[str, Failure] = {}
    for table in read_tables(store, folder, Failure):
        for failure in from_table(table, Failure):
            if any(failure.key in keys for keys in made):
                continue
            if failure.permanent or failure.key not in found:
                found[failure.key] = failure
    return dict(sorted(found.items()))


def read_tables(store: Store, folder: str, kind: type[R]) -> Iterator[pa.Table]:
    """Yield the committed tables of one kind, in commit order."""
    keys = [file.key for file in committed_files(store, folder, kind)]
    for data in map_objects(store.get, keys):
        yield pq.read_table(io.BytesIO(data), schema=kind.SCHEMA)


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def mark_complete(store: Store, folder: str, summary: Mapping[str, Any]) -> None:
    """Declare a stage finished: later runs skip it and read its summary."""
    store.put(f"{folder}/{COMPLETE}", json.dumps(summary, indent=1, sort_keys=True).encode())


def read_complete(store: Store, folder: str) -> dict[str, Any] | None:
    """Return the summary of a finished stage; None if it is not finished."""
    try:
        return json.loads(store.get(f"{folder}/{COMPLETE}"))
    except MissingKey:
        return None


def count_reasons(failures: Mapping[str, Failure]) -> dict[str, int]:
    """Return the number of failures by reason, the commonest first."""
    return dict(Counter(f.reason for f in failures.values()).most_common())
