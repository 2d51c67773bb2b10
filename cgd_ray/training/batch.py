"""Packed batches in the store: which file holds which, and one of them as tensors."""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn.functional import pad

from cgd_ray.examples.packing import positions
from cgd_ray.records import PackedBatch
from cgd_ray.shards import committed_files
from cgd_ray.store import Store
from cgd_ray.training.shard_cache import ShardCache

_CPU = torch.device("cpu")
_MULTIPLE = 64  # tokens


@dataclass(frozen=True, slots=True)
class BatchTensors:
    """One packed batch on a device: T tokens, K of them targets."""

    input_ids_1T: torch.Tensor
    position_ids_1T: torch.Tensor  # restart at every document
    predict_at_K: torch.Tensor  # place of the token before each target: where it is predicted
    target_ids_K: torch.Tensor
    document_lengths: list[int]

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """Return the batch in memory that a GPU can fetch while it computes."""
        return self._mapped(torch.Tensor.pin_memory)

    def padded(self) -> Self:
        """Return the batch with a multiple of 64 tokens, those added after its last document's.

        No other token sees them. A CPU's kernels are made for each number of tokens that they meet:
        few numbers, few kernels, and quicker ones (5 % of a step).
        """
        missing = -self.input_ids_1T.shape[1] % _MULTIPLE
        *others, last = self.document_lengths
        start = int(self.position_ids_1T[0, -1]) + 1
        return replace(
            self,
            input_ids_1T=pad(self.input_ids_1T, (0, missing)),
            position_ids_1T=torch.cat(
                [self.position_ids_1T, torch.arange(start, start + missing)[None]], 1
            ),
            document_lengths=[*others, last + missing],
        )

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        return replace(
            self,
            input_ids_1T=change(self.input_ids_1T),
            position_ids_1T=change(self.position_ids_1T),
            predict_at_K=change(self.predict_at_K),
            target_ids_K=change(self.target_ids_K),
        )


@dataclass(frozen=True, slots=True)
class PackedIndex:
    """What the commits say of N packed batches, in order of their index: no token is read."""

    files: tuple[str, ...]
    file_of_N: np.ndarray  # place in `files`
    row_of_N: np.ndarray  # within the file
    num_tokens_N: np.ndarray
    num_targets_N: np.ndarray
    num_pairs_N: np.ndarray  # see `PackedBatch.num_pairs`

    def __len__(self) -> int:
        return len(self.num_tokens_N)


class PackedData:
    """All packed batches of a data set, each read when it is asked for."""

    def __init__(
        self, index: PackedIndex, table_of: Callable[[str], pa.Table], cache: ShardCache | None
    ) -> None:
        self.index = index
        self.num_targets, self.num_tokens = index.num_targets_N, index.num_tokens_N
        self._table_of, self._cache = table_of, cache

    def __len__(self) -> int:
        return len(self.index)

    @property
    def num_fetched(self) -> int:
        """Files that this process has asked of the store."""
        return self._cache.num_fetched if self._cache else 0

    def example_ids(self, index: int) -> list[str]:
        """Return the ids of the documents in a row."""
        table, row = self._place(index)
        return table.column("example_ids")[row].as_py()

    def tensors(self, index: int, device: torch.device = _CPU) -> BatchTensors:
        """Return one row as tensors."""
        table, place = self._place(index)
        row = {name: table.column(name)[place].values for name in _COLUMNS}
        ids = torch.from_numpy(row["input_ids"].to_numpy().astype(np.int64))
        targets = torch.from_numpy(np.flatnonzero(row["loss_mask"].to_numpy()))
        lengths = row["document_lengths"].to_pylist()
        return BatchTensors(
            input_ids_1T=ids[None],
            position_ids_1T=torch.tensor(positions(lengths))[None],
            predict_at_K=targets - 1,
            target_ids_K=ids[targets],
            document_lengths=lengths,
        ).to(device)

    def close(self) -> None:
        """Delete what was fetched: training is over."""
        if self._cache:
            self._cache.delete()

    def _place(self, index: int) -> tuple[pa.Table, int]:
        table = self._table_of(self.index.files[self.index.file_of_N[index]])
        return table, int(self.index.row_of_N[index])


_COLUMNS = ("input_ids", "loss_mask", "document_lengths")


def read_index(store: Store, folder: str) -> PackedIndex:
    """Return where the committed packed batches of a stage are, and how large."""
    keys: list[str] = []
    parts: list[np.ndarray] = []
    for file in committed_files(store, folder, PackedBatch):
        columns = [file.columns[name] for name in PackedBatch.COMMITTED]
        rows, number = range(len(file.ids)), [len(keys)] * len(file.ids)
        indices = [int(key) for key in file.ids]
        parts.append(np.array([indices, number, rows, *columns], dtype=np.int64))
        keys.append(file.key)
    return _index(tuple(keys), np.concatenate(parts, axis=1))


def _index(files: tuple[str, ...], table: np.ndarray) -> PackedIndex:
    # Two attempts may have committed a row: it counts once.
    first = np.unique(table[0], return_index=True)[1]
    return PackedIndex(files, *table[1:, first])


def load_packed(store: Store, folder: str, cache_gib: float = 4.0) -> PackedData:
    """Return the committed packed batches of a stage; their files come when a row is asked for.

    Args:
        store: where they are.
        folder: the stage's.
        cache_gib: most of this machine's disk for fetched files, in GiB.
    """
    name = hashlib.sha256(f"{store.root}/{folder}".encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"cgd-data-{os.getuid()}" / name
    cache = ShardCache(store, path, PackedBatch.SCHEMA, cache_gib * 2**30)
    return PackedData(read_index(store, folder), cache.table, cache)


def packed_from_parquet(data: bytes) -> PackedData:
    """Return the packed batches of one parquet file, in memory."""
    table = pq.read_table(io.BytesIO(data), schema=PackedBatch.SCHEMA)
    masks, lengths = table["loss_mask"], table["document_lengths"]
    columns = [
        table["index"].to_numpy(),
        np.zeros(len(table), dtype=np.int64),
        np.arange(len(table)),
        [len(mask) for mask in masks],
        [np.sum(mask.values.to_numpy()) for mask in masks],
        [np.sum(np.square(row.values.to_numpy().astype(np.int64))) for row in lengths],
    ]
    return PackedData(_index(("",), np.array(columns, dtype=np.int64)), lambda _: table, None)
