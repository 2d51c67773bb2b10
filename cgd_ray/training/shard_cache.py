"""Shard files on this machine's disk: fetched once, shared by its workers, bounded, memory-mapped.

A fetched file is kept as uncompressed Arrow, so that reading one row touches that row alone and the
operating system, not the process, decides how much of it stays in memory.
"""

import fcntl
import hashlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cgd_ray.store import Store, StoreError


class ShardCache:
    """Parquet files of a store as tables, the least recently used deleted first.

    Args:
        store: where the files are.
        folder: of the cache; processes may share it.
        schema: of the files.
        max_bytes: of the cache on disk; files that are being fetched may exceed it.
    """

    def __init__(self, store: Store, folder: Path, schema: pa.Schema, max_bytes: float) -> None:
        self._store, self._folder, self._schema = store, folder, schema
        self._max_bytes = max_bytes
        self._counting = threading.Lock()
        self.num_fetched = 0  # files asked of the store, by this process

    def table(self, key: str) -> pa.Table:
        """Return a file's rows, mapped from disk; it is fetched first where it is not there.

        Raises:
            StoreError: the store does not answer, or the disk is full.
        """
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.arrow"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _held(path):
                return self._open(path) or self._fetch(key, path)
        except OSError as error:
            raise StoreError(
                f"{self._folder} cannot hold training data ({error.strerror or error}): free disk "
                "space, lower train.data_cache_gib or let TMPDIR name another disk"
            ) from error

    def delete(self) -> None:
        """Remove the whole folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self, path: Path) -> pa.Table | None:
        """Return a kept file's rows; None if it is not kept (any more)."""
        try:
            os.utime(path)
            # A deleted file stays readable for those who have it open.
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except FileNotFoundError:
            return None

    def _fetch(self, key: str, path: Path) -> pa.Table:
        table = pq.read_table(io.BytesIO(self._store.get(key)), schema=self._schema)
        with self._counting:
            self.num_fetched += 1
        self._make_room(table.nbytes, path)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part") as part:
            with pa.ipc.new_file(part, self._schema) as writer:
                writer.write_table(table.combine_chunks())
            part.flush()
            rows = pa.ipc.open_file(pa.memory_map(part.name)).read_all()
            os.link(part.name, path)
        return rows

    def _make_room(self, num_bytes: int, path: Path) -> None:
        """Delete the least recently used files until so many bytes fit."""
        files: list[tuple[float, int, Path]] = []
        for other in self._folder.glob("*.arrow"):
            try:
                stat = other.stat()
            except FileNotFoundError:
                continue
            files.append((stat.st_mtime, stat.st_size, other))
        total = sum(size for _, size, _ in files)
        for _, size, other in sorted(files):
            if total + num_bytes <= self._max_bytes:
                return
            if other != path:
                other.unlink(missing_ok=True)
                total -= size


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Keep other threads and processes from the same file; a killed one lets go of it."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
