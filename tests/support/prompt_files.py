"""Prompt files of every format, and what becomes of them."""

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cgd_ray.errors import UserError
from cgd_ray.prompts.sources import load_prompts
from cgd_ray.records import Outcomes, Prompt
from cgd_ray.settings import PromptSettings

ROWS = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(6)]
TEST = [{"prompt": f"What is {i} + 2?", "answer": str(i + 2)} for i in range(3)]


def write(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    """Write rows in the format that the file's name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(list(rows))
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def loaded(train: Path | str, test: Path | str | None, **values: object) -> Outcomes:
    settings = PromptSettings(train=str(train), test=test and str(test), **values)
    return joined(settings, 1)


def joined(settings: PromptSettings, seed: int) -> Outcomes:
    """Return all chunks as one, training first."""
    chunks = list(load_prompts(settings, seed))
    records = sorted((r for c in chunks for r in c.records), key=lambda r: r.split == "test")
    return Outcomes(tuple(records), tuple(f for c in chunks for f in c.failures))


def refusal(train: Path | str, test: Path | str | None, **values: object) -> str:
    with pytest.raises(UserError) as raised:
        loaded(train, test, **values)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def of_split(outcomes: Outcomes, split: str) -> list[Prompt]:
    return [p for p in outcomes.records if isinstance(p, Prompt) and p.split == split]
