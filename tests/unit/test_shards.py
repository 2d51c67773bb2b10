"""Shards and commits: a writer may be killed, retried or run twice, and each row counts once."""

import io
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cgd_ray.records import (
    Critique,
    CuratedRow,
    Draft,
    Example,
    Failure,
    PackedBatch,
    Prompt,
    Record,
    Refinement,
    Score,
    from_table,
    to_table,
)
from cgd_ray.shards import (
    commit_shard,
    committed_files,
    count_reasons,
    mark_complete,
    read_complete,
    read_failures,
    read_records,
    read_rows,
)
from cgd_ray.store import LocalStore
from tests.support.records import critique, draft, failure, prompt, refinement


class Killed(Exception):
    """What ends a writer in these tests."""


class DyingStore(LocalStore):
    """Dies before the write of that number."""

    def __init__(self, root: str, dies_before: int) -> None:
        super().__init__(root)
        self.left = dies_before

    def put(self, key: str, data: bytes) -> None:
        self._count()
        super().put(key, data)

    def put_new(self, key: str, data: bytes) -> bool:
        self._count()
        return super().put_new(key, data)

    def _count(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path))


def prompts(*ids: str) -> list[Record]:
    return [prompt(f"text of {i}", id=i) for i in ids]


KINDS: list[Record] = [
    prompt(reference=None, solution="gold"),
    draft("caf\u00e9 \u0000 \U0001f600"),
    critique(),
    refinement(),
    failure("a", permanent=True),
    CuratedRow("p/0", "p", None, True, "why"),
    Example("p/0#cgd", "cgd", (1, 2, 3), (0, 0, 1)),
    PackedBatch(0, ("a", "b"), (2, 1), (1, 2, 3), (0, 1, 1)),
    Score("base", "p", "5", None, False, "no answer", 3),
]


@pytest.mark.parametrize("record", KINDS, ids=lambda r: type(r).__name__)
def test_every_record_survives_the_store(store: LocalStore, record: Record) -> None:
    assert commit_shard(store, "stage", [record])
    found = read_records(store, "stage", type(record))
    assert found == {record.key: record}
    assert type(next(iter(found.values()))) is type(record)


def test_a_shard_may_hold_many_kinds(store: LocalStore) -> None:
    commit_shard(store, "stage", KINDS)
    for record in KINDS:
        assert list(read_records(store, "stage", type(record)).values()) == [record]


def test_arrow_columns_are_those_of_the_schema() -> None:
    table = to_table(prompts("a"), Prompt)
    assert table.schema == Prompt.SCHEMA
    assert from_table(table.append_column("more", pa.array([1])), Prompt) == prompts("a")


def test_readers_take_each_key_once_in_key_order(store: LocalStore) -> None:
    commit_shard(store, "stage", prompts("c", "a"))
    commit_shard(store, "stage", prompts("b", "c"))
    assert list(read_records(store, "stage", Prompt)) == ["a", "b", "c"]


def test_the_same_rows_are_committed_once_whatever_their_order(store: LocalStore) -> None:
    assert commit_shard(store, "stage", prompts("a", "b")) is True
    assert commit_shard(store, "stage", prompts("b", "a")) is False
    assert len(list(store.list("stage/commits/"))) == 1


def test_eight_attempts_at_once_leave_one_commit(store: LocalStore) -> None:
    won: list[bool] = []
    start = threading.Barrier(8)

    def attempt(index: int) -> None:
        rows = [prompt(f"by attempt {index}", id=i) for i in "ab"]
        start.wait()
        won.append(commit_shard(store, "stage", rows))

    threads = [threading.Thread(target=attempt, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    texts = {p.text for p in read_records(store, "stage", Prompt).values()}
    assert len(texts) == 1, "rows of two attempts were mixed"


@pytest.mark.parametrize("writes_done", [0, 1, 2])
def test_a_writer_killed_before_its_commit_leaves_nothing(
    tmp_path: Path, store: LocalStore, writes_done: int
) -> None:
    rows = [*prompts("a"), failure("b")]
    with pytest.raises(Killed):
        commit_shard(DyingStore(str(tmp_path), writes_done), "stage", rows)
    assert len(list(store.list("stage/shards/"))) == writes_done
    assert read_records(store, "stage", Prompt) == {}
    assert read_failures(store, "stage") == {}
    assert commit_shard(store, "stage", rows) is True
    assert list(read_records(store, "stage", Prompt)) == ["a"]
    assert list(read_failures(store, "stage")) == ["b"]


def test_shard_files_without_a_commit_are_invisible(store: LocalStore) -> None:
    commit_shard(store, "stage", prompts("a"))
    (commit,) = store.list("stage/commits/")
    store.delete(commit.key)
    assert list(store.list("stage/shards/")) != []
    assert read_records(store, "stage", Prompt) == {}


def test_a_transient_failure_then_success_is_one_record(store: LocalStore) -> None:
    commit_shard(store, "stage", [*prompts("a"), failure("b")])
    made = read_records(store, "stage", Prompt)
    assert list(read_failures(store, "stage", made)) == ["b"]
    commit_shard(store, "stage", prompts("b"))
    made = read_records(store, "stage", Prompt)
    assert list(made) == ["a", "b"]
    assert read_failures(store, "stage", made) == {}


@pytest.mark.parametrize("permanent_first", [True, False])
def test_a_permanent_failure_wins_over_a_transient_one(
    store: LocalStore, permanent_first: bool
) -> None:
    transient = failure("a", "overloaded")
    permanent = failure("a", "refusal", permanent=True)
    order = [permanent, transient] if permanent_first else [transient, permanent]
    # Rows of other keys make the two commits different units, in either order of their names.
    for number, one in enumerate(order):
        for other in range(4):
            commit_shard(store, "stage", [one, *prompts(f"{number}{other}")])
    assert read_failures(store, "stage") == {"a": permanent}


def test_a_failure_is_known_by_the_records_of_any_stage(store: LocalStore) -> None:
    commit_shard(store, "stage", [failure("a"), failure("b"), failure("c")])
    assert list(read_failures(store, "stage", {"a": prompt()}, {"c": prompt()})) == ["b"]


def test_a_commit_tells_what_its_files_hold(store: LocalStore) -> None:
    drafts = [draft(id="a/0", num_tokens=3), draft(id="b/0", num_tokens=4)]
    commit_shard(store, "stage", [*drafts, failure("c")])
    commit_shard(store, "stage", [draft(id="d/0", num_tokens=5)])
    files = list(committed_files(store, "stage"))
    told = sorted((f.kind, f.ids, f.sums.get("num_tokens")) for f in files)
    assert told == [
        ("Draft", ("a/0", "b/0"), 7),
        ("Draft", ("d/0",), 5),
        ("Failure", ("c",), None),
    ]
    assert {f.kind for f in committed_files(store, "stage", Failure)} == {"Failure"}
    for file in files:
        assert pq.read_table(io.BytesIO(store.get(file.key))).num_rows == len(file.ids)


def test_a_value_that_does_not_fit_is_refused_before_any_write(store: LocalStore) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        commit_shard(store, "stage", [prompt(), draft(num_tokens=2**40)])
    assert list(store.list("stage/commits/")) == []


def test_reasons_are_counted_the_commonest_first() -> None:
    failures = {str(i): failure(str(i), "b" if i else "a") for i in range(3)}
    assert list(count_reasons(failures).items()) == [("b", 2), ("a", 1)]


def test_a_stage_is_counted_by_kind_without_its_contents(store: LocalStore) -> None:
    first, second = critique(), refinement()
    commit_shard(store, "stage", [first, second])
    commit_shard(store, "stage", [failure("gone")])
    rows = read_rows(store, "stage")
    assert first.draft_id in rows.of(Critique)
    assert (len(rows.of(Refinement)), len(rows.of(Failure)), len(rows.of(Draft))) == (1, 1, 0)
    both = first.num_output_tokens + second.num_output_tokens
    assert rows.total("num_output_tokens", Critique, Refinement, Draft) == both > 0


def test_a_finished_stage_says_so(store: LocalStore) -> None:
    assert read_complete(store, "stage") is None
    mark_complete(store, "stage", {"made": 3, "failed": {"empty": 1}})
    assert read_complete(store, "stage") == {"made": 3, "failed": {"empty": 1}}
    assert read_records(store, "stage", Prompt) == {}
