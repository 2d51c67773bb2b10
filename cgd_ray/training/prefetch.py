"""The next packed batches, made ready by threads while the loop computes."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Self

import torch

from cgd_ray.training.batch import BatchTensors, PackedData

_THREADS = 4  # several, because the first rows of a window are in as many files


class BatchStream:
    """Rows as tensors on a device, in order, some of them ahead of the loop.

    Args:
        data: the packed batches.
        device: where the loop computes.
        num_ahead: rows under way before the loop asks for them (`train.prefetch_batches`).
    """

    def __init__(self, data: PackedData, device: torch.device, num_ahead: int) -> None:
        self._data, self._device, self._num_ahead = data, device, num_ahead
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="training-data")
        self._rows: Iterator[int] = iter(())
        self._ahead: deque[Future[BatchTensors]] = deque()
        self._waited_s, self._num_fetched = 0.0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, rows: Iterator[int]) -> None:
        """Begin with the rows that the loop will ask for, in its order."""
        self._rows = rows
        self._submit(self._num_ahead)

    def next(self) -> BatchTensors:
        """Return the next row.

        Raises:
            StoreError: its file cannot be had.
        """
        self._submit(1)
        start = time.monotonic()
        batch = self._ahead.popleft().result()
        self._waited_s += time.monotonic() - start
        return batch.to(self._device)

    def take_costs(self) -> tuple[float, int]:
        """Return seconds that the loop waited for data and files fetched, since it last asked."""
        costs = self._waited_s, self._data.num_fetched - self._num_fetched
        self._waited_s, self._num_fetched = 0.0, self._data.num_fetched
        return costs

    def _submit(self, number: int) -> None:
        self._ahead.extend(self._pool.submit(self._make, row) for row in islice(self._rows, number))

    def _make(self, row: int) -> BatchTensors:
        batch = self._data.tensors(row).padded()
        return batch.pinned() if self._device.type == "cuda" else batch
