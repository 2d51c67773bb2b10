"""The checker of committed rows finds each kind of wrong that it counts."""

from dataclasses import replace
from pathlib import Path

import pytest

from cgd_ray.shards import commit_shard, committed_files
from cgd_ray.store import LocalStore
from tests.support.records import draft, failure
from tests.support.row_checker import Violations, check_ids, check_shards

ROWS = [draft(id="a/0"), draft(id="b/0"), failure("c/0")]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    found = LocalStore(str(tmp_path))
    commit_shard(found, "drafts", ROWS)
    return found


def test_what_went_in_is_what_is_there(store):
    assert check_shards(store, "drafts", ROWS) == Violations()


def test_a_missing_row_is_lost_unless_the_work_goes_on(store):
    more = [*ROWS, draft(id="d/0")]
    assert check_shards(store, "drafts", more) == Violations(lost=1)
    assert check_shards(store, "drafts", more, unfinished=True) == Violations()


def test_a_row_in_two_commits_is_duplicated(store):
    commit_shard(store, "drafts", ROWS[:1])
    assert check_shards(store, "drafts", ROWS) == Violations(duplicated=1)


def test_a_row_that_nobody_asked_for_is_unexpected(store):
    assert check_shards(store, "drafts", ROWS[1:]) == Violations(unexpected=1)


def test_a_changed_row_is_corrupt(store):
    changed = [replace(ROWS[0], text="other"), *ROWS[1:]]
    assert check_shards(store, "drafts", changed) == Violations(corrupt=1)


@pytest.mark.parametrize("data", [None, b"PAR1 and no more"])
def test_a_missing_or_unreadable_file_is_corrupt_and_its_rows_lost(store, data):
    (file,) = [f for f in committed_files(store, "drafts") if f.kind == "Draft"]
    store.delete(file.key)
    if data:
        store.put(file.key, data)
    assert check_shards(store, "drafts", ROWS) == Violations(lost=2, corrupt=2)


def test_ids_alone_can_be_checked():
    assert check_ids("abc", "abbd") == Violations(lost=1, duplicated=1, unexpected=1)
    assert check_ids("abc", dict.fromkeys("abc", 7)) == Violations()
