"""Packed batches of random documents, and a model's logits on one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cgd_ray.examples.packing import pack
from cgd_ray.records import Example, PackedBatch, to_table
from cgd_ray.shards import parquet_bytes
from cgd_ray.training.batch import BatchTensors, PackedData, packed_from_parquet
from tests.support.tiny_llama import VOCABULARY

CPU = torch.device("cpu")


def documents(lengths: Sequence[int], seed: int = 3) -> list[Example]:
    """Return documents of random tokens; the later half of each is the target."""
    draw = np.random.default_rng(seed)
    return [
        Example(
            f"d{i}",
            "cgd",
            tuple(draw.integers(0, VOCABULARY, n).tolist()),
            (0,) * (n - n // 2) + (1,) * (n // 2),
        )
        for i, n in enumerate(lengths)
    ]


def packed(
    examples: Sequence[Example], length: int = 10_000, most: int | None = None
) -> PackedData:
    return packed_from_parquet(parquet_bytes(to_table(pack(examples, length, most), PackedBatch)))


def row(examples: Sequence[Example]) -> BatchTensors:
    data = packed(examples)
    assert len(data) == 1
    return data.tensors(0, CPU)


def logits(model: Any, batch: BatchTensors) -> torch.Tensor:
    with torch.no_grad():
        return model(
            input_ids=batch.input_ids_1T,
            position_ids=batch.position_ids_1T,
            document_lengths=batch.document_lengths,
            use_cache=False,
        ).logits[0]
