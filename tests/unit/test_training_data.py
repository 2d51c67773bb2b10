"""Reading packed batches: order by the file, what is fetched and kept, and what is made ready."""

import errno
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cgd_ray.errors import UserError
from cgd_ray.examples.packing import SHARD_ROWS
from cgd_ray.records import PackedBatch
from cgd_ray.shards import commit_shard
from cgd_ray.store import LocalStore, MissingKey
from cgd_ray.training.batch import PackedData, load_packed, read_index
from cgd_ray.training.order import planned_rows, rows_of_step, rows_of_worker
from cgd_ray.training.prefetch import BatchStream
from cgd_ray.training.shard_cache import ShardCache

CPU = torch.device("cpu")
NUM_ROWS, IN_SHARD = 20, 4


class CountingStore(LocalStore):
    """A store that notes what is read."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.read: list[str] = []

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return super().get(key)

    @property
    def shards(self) -> list[str]:
        return [key for key in self.read if key.endswith(".parquet")]


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    """Twenty rows of 6 to 25 tokens in five shards; a row's tokens are its index."""
    made = CountingStore(str(tmp_path / "store"))
    rows = [
        PackedBatch(i, (f"e{i}",), (4, i + 2), (i,) * (i + 6), (0, 0, 1, 1) + (0,) * i + (1, 1))
        for i in range(NUM_ROWS)
    ]
    for start in range(0, NUM_ROWS, IN_SHARD):
        commit_shard(made, "examples", rows[start : start + IN_SHARD])
    return made


@pytest.fixture
def data(store: CountingStore) -> Iterator[PackedData]:
    loaded = load_packed(store, "examples")
    yield loaded
    loaded.close()


# The index.


def test_the_commits_tell_all_that_steps_are_planned_by(store: CountingStore) -> None:
    index = read_index(store, "examples")
    assert len(index) == NUM_ROWS
    assert index.num_tokens_N.tolist() == [i + 6 for i in range(NUM_ROWS)]
    assert index.num_targets_N.tolist() == [4] * NUM_ROWS
    assert index.num_pairs_N.tolist() == [16 + (i + 2) ** 2 for i in range(NUM_ROWS)]
    assert store.shards == [], "no token was read"


def test_each_row_is_found_in_its_file(data: PackedData, store: CountingStore) -> None:
    for row in (17, 3, 0, 19, 8):
        assert set(data.tensors(row).input_ids_1T[0].tolist()) == {row}
        assert data.example_ids(row) == [f"e{row}"]
    assert Counter(store.shards).most_common(1)[0][1] == 1, "a file is fetched once"
    assert data.num_fetched == len(store.shards) == 3


# Order.


def windowed(num_rows: int, window: int | None, per_step: int = 7, epoch: int = 0) -> list[int]:
    steps = -(-num_rows // per_step)
    first = epoch * steps
    taken = [rows_of_step(first + s, num_rows, per_step, 1, window) for s in range(steps)]
    return [row for rows in taken for row in rows]


def test_a_window_as_large_as_the_data_changes_nothing() -> None:
    for window in (50, 51, 10**9):
        assert windowed(50, window) == windowed(50, None)


def test_every_epoch_takes_each_row_once_by_windows_of_whole_files() -> None:
    num_rows = 9 * SHARD_ROWS + 100
    epochs = [windowed(num_rows, 3 * SHARD_ROWS, 64, epoch) for epoch in range(2)]
    for order in epochs:
        assert sorted(order) == list(range(num_rows))
        files = [row // SHARD_ROWS for row in order]
        last_use = {file: place for place, file in enumerate(files)}
        first_use = {file: files.index(file) for file in last_use}
        open_at_once = max(
            sum(first_use[f] <= place <= last_use[f] for f in last_use)
            for place in range(0, num_rows, 97)
        )
        assert open_at_once == 3, "room for one window is enough"
        start = order[: 2 * SHARD_ROWS]
        assert len({row // SHARD_ROWS for row in start[:50]}) == 3, "rows of a window are mixed"
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_the_plan_is_what_the_loop_asks_for(num_workers: int) -> None:
    order = (NUM_ROWS, 6, 1, None)
    for rank in range(num_workers):
        planned = list(planned_rows(range(2, 8), *order, rank, num_workers))
        asked: list[int] = []
        for step in range(2, 8):
            rows = rows_of_step(step, *order)
            places = rows_of_worker(rows, rank, num_workers, 6)
            asked += [rows[0] if row is None else row for row in places]
        assert planned == asked


# The cache.


def cache_of(store: CountingStore, folder: Path, max_bytes: float) -> ShardCache:
    return ShardCache(store, folder, PackedBatch.SCHEMA, max_bytes)


def test_the_cache_drops_what_was_not_used_for_longest(
    store: CountingStore, tmp_path: Path
) -> None:
    first, second, third, *_ = read_index(store, "examples").files
    folder = tmp_path / "cache"
    roomy = cache_of(store, folder, 1e9)
    roomy.table(first), roomy.table(second)
    kept = sum(path.stat().st_size for path in folder.glob("*.arrow"))
    roomy.table(first)
    last = cache_of(store, tmp_path / "other", 1e9).table(third).nbytes
    narrow = cache_of(store, folder, kept + last - 1)
    narrow.table(third)
    narrow.table(first)
    assert narrow.num_fetched == 1
    narrow.table(second)
    assert narrow.num_fetched == 2


def test_processes_share_what_one_has_fetched(store: CountingStore, tmp_path: Path) -> None:
    key = read_index(store, "examples").files[0]
    first, second = (cache_of(store, tmp_path / "cache", 1e9) for _ in range(2))
    tables = [first.table(key), second.table(key)]
    assert tables[0].equals(tables[1])
    assert (first.num_fetched, second.num_fetched) == (1, 0)
    first.delete()
    assert not (tmp_path / "cache").exists()
    assert tables[0].column("index").to_pylist() == tables[1].column("index").to_pylist()
    assert second.table(key).equals(tables[0]), "what was deleted is fetched again"


def test_threads_that_want_one_file_fetch_it_once(store: CountingStore, tmp_path: Path) -> None:
    key = read_index(store, "examples").files[0]
    cache = cache_of(store, tmp_path / "cache", 1e9)
    threads = [threading.Thread(target=cache.table, args=(key,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.num_fetched == 1


def test_a_full_disk_is_one_clear_line(
    store: CountingStore, data: PackedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cgd_ray.training.shard_cache.tempfile.NamedTemporaryFile", full)
    with pytest.raises(UserError, match=r"No space left.*train\.data_cache_gib") as raised:
        data.tensors(0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("cache_gib", [1.0, 1e-9])
def test_a_cache_of_one_file_changes_no_row(store: CountingStore, cache_gib: float) -> None:
    data = load_packed(store, "examples", cache_gib)
    rows = [int(r) for r in np.random.default_rng(1).permutation(NUM_ROWS)] * 2
    with BatchStream(data, CPU, 3) as batches:
        batches.start(iter(rows))
        taken = [int(batches.next().input_ids_1T[0, 0]) for _ in rows]
        fetched = batches.take_costs()[1]
    data.close()
    assert taken == rows
    assert fetched == 5 if cache_gib == 1.0 else fetched > 5


# What is made ready.


class GatedData:
    """Rows that are made when the test says so."""

    num_fetched = 0

    def __init__(self, real: PackedData) -> None:
        self.real, self.asked, self.open = real, [], threading.Event()

    def tensors(self, row: int):
        self.asked.append(row)
        assert self.open.wait(30)
        return self.real.tensors(row)


def test_rows_are_made_ahead_and_no_further(data: PackedData) -> None:
    gated = GatedData(data)
    with BatchStream(gated, CPU, 3) as batches:  # type: ignore[arg-type]
        batches.start(iter(range(20)))
        gated.open.set()
        for row in range(20):
            assert int(batches.next().input_ids_1T[0, 0]) == row
            assert max(gated.asked) <= row + 3
    assert sorted(gated.asked) == list(range(20))


def test_the_loop_is_told_how_long_it_waited(data: PackedData) -> None:
    gated = GatedData(data)
    with BatchStream(gated, CPU, 2) as batches:  # type: ignore[arg-type]
        batches.start(iter(range(4)))
        threading.Timer(0.2, gated.open.set).start()
        batches.next()
        waited_s, _ = batches.take_costs()
        assert 0.1 <= waited_s <= 10
        assert batches.take_costs() == (0.0, 0)


def test_closing_early_leaves_no_thread(data: PackedData) -> None:
    before = threading.active_count()
    with BatchStream(data, CPU, 8) as batches:
        batches.start(iter(range(20)))
        batches.next()
    assert threading.active_count() == before


def test_a_missing_file_stops_the_loop(data: PackedData, store: CountingStore) -> None:
    for key in data.index.files:
        store.delete(key)
    with BatchStream(data, CPU, 2) as batches:
        batches.start(iter([0, 1]))
        with pytest.raises(MissingKey):
            batches.next()
