"""Objects in a local folder: whole or absent, and created at most once."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.store import LocalStore, MissingKey, S3Store, open_store, split_location


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "root"))


def race(number: int, work: Callable[[int], bool]) -> list[bool]:
    """Let threads do their work at the same moment; return what each got."""
    start, results = threading.Barrier(number), [False] * number

    def run(index: int) -> None:
        start.wait()
        results[index] = work(index)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_eight_creators_exactly_one_wins(store: LocalStore) -> None:
    for round_number in range(20):
        key = f"commits/{round_number}.json"
        won = race(8, lambda i, key=key: store.put_new(key, str(i).encode()))
        assert won.count(True) == 1
        assert store.get(key) == str(won.index(True)).encode()


def test_put_new_changes_nothing_that_exists(store: LocalStore) -> None:
    store.put("a", b"first")
    assert store.put_new("a", b"second") is False
    assert store.get("a") == b"first"


def test_put_replaces_the_whole_object_under_readers(store: LocalStore) -> None:
    texts = [bytes([i]) * 200_000 for i in range(8)]
    store.put("a", texts[0])
    seen: list[bytes] = []

    def work(index: int) -> bool:
        if index < 4:
            for text in texts:
                store.put("a", text)
        else:
            seen.extend(store.get("a") for _ in range(20))
        return True

    race(8, work)
    assert set(seen) <= set(texts)


def test_a_missing_key_is_told_apart(store: LocalStore) -> None:
    store.put("folder/a", b"")
    for key in ("no", "folder", "folder/no"):
        with pytest.raises(MissingKey, match=key):
            store.get(key)
    assert store.get("folder/a") == b""
    store.delete("folder/no")
    store.delete("folder/a")
    with pytest.raises(MissingKey):
        store.get("folder/a")


def test_a_listing_is_by_prefix_and_in_key_order(store: LocalStore) -> None:
    for key in ("b/2", "b/10", "b/1/x", "bc/1", "a", "b.txt"):
        store.put(key, b"12")
    assert [e.key for e in store.list("b/")] == ["b/1/x", "b/10", "b/2"]
    assert [e.key for e in store.list("b")] == ["b.txt", "b/1/x", "b/10", "b/2", "bc/1"]
    assert [e.key for e in store.list("b/1")] == ["b/1/x", "b/10"]
    assert list(store.list("no/")) == list(store.list("no")) == []
    assert {e.num_bytes for e in store.list("b/")} == {2}


def test_an_empty_prefix_lists_the_root_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside.txt").write_text("not ours")
    store = LocalStore(str(tmp_path / "root"))
    assert list(store.list("")) == []
    store.put("a/b", b"")
    store.put("c", b"")
    assert [e.key for e in store.list("")] == ["a/b", "c"]


def test_a_half_written_object_is_invisible(store: LocalStore) -> None:
    store.put("a/whole", b"")
    (Path(store.root) / "a" / ".tmp-killed").write_bytes(b"half")
    assert [e.key for e in store.list("a/")] == ["a/whole"]


def test_an_object_deleted_while_it_is_listed_is_left_out(store: LocalStore) -> None:
    for key in ("a/1", "a/2", "a/3"):
        store.put(key, b"")
    listing = store.list("a/")
    assert next(listing).key == "a/1"
    store.delete("a/2")
    assert [e.key for e in listing] == ["a/3"]


def test_a_version_changes_with_the_content(store: LocalStore) -> None:
    store.put("a", b"one")
    (before,) = store.list("a")
    assert list(store.list("a")) == [before]
    store.put("a", b"two")
    (after,) = store.list("a")
    assert after.version != before.version


def test_files_go_up_and_come_back(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"\x00\xff")
    store.upload(tmp_path / "up", "deep/key")
    store.download("deep/key", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == b"\x00\xff"
    with pytest.raises(MissingKey):
        store.download("no", tmp_path / "none")


def test_roots_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert isinstance(open_store("s3://bucket/a/b/"), S3Store)
    with pytest.raises(UserError, match="names no bucket"):
        open_store("s3:///a")
    with pytest.raises(UserError, match="neither a folder nor s3://"):
        open_store("gs://bucket/a")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://b/k/*.parquet", ("s3://b", "k/*.parquet")),
        ("/data/a.jsonl", ("/data", "a.jsonl")),
        ("/data/folder", ("/data", "folder")),
        ("/data/*/a.jsonl", ("/data", "*/a.jsonl")),
        ("/data/x*/y/*.jsonl", ("/data", "x*/y/*.jsonl")),
        ("a.jsonl", (".", "a.jsonl")),
        ("*.jsonl", (".", "*.jsonl")),
    ],
)
def test_a_location_is_a_root_and_a_pattern(location: str, expected: tuple[str, str]) -> None:
    assert split_location(location) == expected
