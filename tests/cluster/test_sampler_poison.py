"""A real actor pool whose engine dies on some rows: these are set aside, the others drafted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray.data

from cgd_ray.runtime import ray_session
from cgd_ray.sampling.answers import is_quarantined
from cgd_ray.sampling.attempts import AttemptRecord
from cgd_ray.sampling.echo import EchoFaults
from cgd_ray.sampling.processor import sampler
from cgd_ray.settings import SamplingSettings, StudentSettings
from cgd_ray.store import open_store
from tests.support.draft_rows import draft_rows


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session(4):
        yield


def answer(
    rows: pa.Table, record: AttemptRecord, poison: set[str], batch: int
) -> list[dict[str, Any]]:
    sampling = SamplingSettings(engine="echo", rows_per_request=batch, max_num_seqs=32)
    step = sampler(
        "",
        sampling,
        StudentSettings(),
        record,
        on_gpu=False,
        echo_faults=EchoFaults(poison_prompt_ids=frozenset(poison)),
    )
    blocks = [rows.slice(i, batch).combine_chunks() for i in range(0, len(rows), batch)]
    return sorted(step(ray.data.from_arrow(blocks)).take_all(), key=lambda row: row["draft_seed"])


@pytest.mark.parametrize(("poison", "batch"), [({"p37"}, 16), ({"p5", "p6"}, 4)])
def test_poison_rows_are_quarantined_and_all_others_drafted_once(
    tmp_path: Path, poison: set[str], batch: int
):
    record, rows = AttemptRecord(str(tmp_path), "drafts", 2), draft_rows(96)
    found = answer(rows, record, poison, batch)
    assert [row["prompt_id"] for row in found] == [f"p{i}" for i in range(96)]
    for i, row in enumerate(found):
        assert row.keys() == {
            "prompt_id",
            "draft_index",
            "draft_seed",
            "draft_max_tokens",
            "prompt_record",
            "num_prompt_tokens",
            "generated_text",
            "num_generated_tokens",
            "__inference_error__",
        }
        assert row["prompt_record"] == rows["prompt_record"][i].as_py()
        if row["prompt_id"] in poison:
            assert is_quarantined(row["__inference_error__"])
            assert "2 times" in row["__inference_error__"]
        else:
            assert (row["generated_text"], row["num_generated_tokens"]) == (f"{3 + i} {4 + i}", 2)
            assert row["__inference_error__"] == ""
    assert not list(open_store(str(tmp_path)).list("drafts/attempts/"))
