"""Packed batches from the store, and as tensors."""

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cgd_ray.examples.packing import positions
from cgd_ray.records import PackedBatch
from cgd_ray.shards import read_tables
from cgd_ray.store import Store


@dataclass(frozen=True, slots=True)
class BatchTensors:
    """One packed batch on a device: T tokens, K of them targets."""

    input_ids_1T: torch.Tensor
    position_ids_1T: torch.Tensor  # restart at every document
    predict_at_K: torch.Tensor  # place of the token before each target: where it is predicted
    target_ids_K: torch.Tensor
    document_lengths: list[int]


class PackedData:
    """All packed batches of a data set, as Arrow columns, by index."""

    def __init__(self, table: pa.Table) -> None:
        table = table.combine_chunks().sort_by("index")
        # Two attempts may have committed a row: it counts once.
        first = np.unique(table.column("index").to_numpy(), return_index=True)[1]
        self._table = table if len(first) == len(table) else table.take(first)
        masks = self._table.column("loss_mask")
        self.num_targets = np.array([np.sum(m.values.to_numpy()) for m in masks], dtype=np.int64)
        self.num_tokens = np.array([len(m) for m in masks], dtype=np.int64)

    def __len__(self) -> int:
        return self._table.num_rows

    def example_ids(self, index: int) -> list[str]:
        """Return the ids of the documents in a row."""
        return self._table.column("example_ids")[index].as_py()

    def tensors(self, index: int, device: torch.device) -> BatchTensors:
        """Return one row as tensors."""
        row = {name: self._table.column(name)[index].values for name in _COLUMNS}
        ids = torch.from_numpy(row["input_ids"].to_numpy().astype(np.int64))
        targets = torch.from_numpy(np.flatnonzero(row["loss_mask"].to_numpy()))
        lengths = row["document_lengths"].to_pylist()
        return BatchTensors(
            input_ids_1T=ids[None].to(device),
            position_ids_1T=torch.tensor(positions(lengths))[None].to(device),
            predict_at_K=(targets - 1).to(device),
            target_ids_K=ids[targets].to(device),
            document_lengths=lengths,
        )


_COLUMNS = ("input_ids", "loss_mask", "document_lengths")


def load_packed(store: Store, folder: str) -> PackedData:
    """Read the committed packed batches of a stage."""
    return PackedData(pa.concat_tables(list(read_tables(store, folder, PackedBatch))))


def packed_from_parquet(data: bytes) -> PackedData:
    """Return the packed batches of one parquet file."""
    return PackedData(pq.read_table(io.BytesIO(data), schema=PackedBatch.SCHEMA))
