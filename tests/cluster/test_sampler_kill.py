"""The real vLLM engine, killed in mid-sampling: every row is answered all the same, once."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray.data

from cgd_ray.runtime import ray_session
from cgd_ray.sampling.attempts import AttemptRecord
from cgd_ray.sampling.processor import sampler
from cgd_ray.settings import SamplingSettings, StudentSettings
from cgd_ray.store import open_store
from tests.support.descendants import descendants
from tests.support.draft_rows import draft_rows

pytest.importorskip("vllm")

ROWS, TOKENS = 48, 256
ENGINE = "EngineCore"


def small_student(folder: Path) -> str:
    """Save a random Llama whose attention heads are of a size that the CPU engine knows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.support.tiny_student import tiny_student

    tiny_student(folder)  # for its tokenizer
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def kill_engine_at_work(record: AttemptRecord, killed: list[int], stop: threading.Event) -> None:
    """Send SIGKILL to the engine once the first rows are answered and others are in it."""
    store = open_store(record.root)
    seen: set[str] = set()
    while not stop.wait(0.02):
        now = {entry.key for entry in store.list("drafts/attempts/")}
        if now and seen - now:
            for process_id in descendants(ENGINE):
                os.kill(process_id, signal.SIGKILL)
                killed.append(process_id)
            return
        seen |= now


def test_a_killed_engine_costs_no_row(tmp_path: Path):
    record = AttemptRecord(str(tmp_path / "store"), "drafts", 3)
    source = small_student(tmp_path / "student")
    settings = SamplingSettings(rows_per_request=8, max_num_seqs=8, kv_cache_gib=1)
    rows = draft_rows(ROWS).to_pylist()
    for row in rows:
        params: dict[str, Any] = row["sampling_params"]
        params.update(max_tokens=TOKENS, ignore_eos=True)
    table = pa.Table.from_pylist(rows)
    killed: list[int] = []
    stop = threading.Event()
    with ray_session(4):
        killer = threading.Thread(target=kill_engine_at_work, args=(record, killed, stop))
        killer.start()
        student = StudentSettings(max_model_len=512)
        step = sampler(source, settings, student, record, on_gpu=False)
        blocks = [table.slice(i, 8).combine_chunks() for i in range(0, ROWS, 8)]
        answered = step(ray.data.from_arrow(blocks)).take_all()
        stop.set()
        killer.join()
    assert len(killed) == 1
    assert sorted(row["draft_seed"] for row in answered) == list(range(ROWS))
    assert all(row["__inference_error__"] == "" for row in answered)
    assert all(row["num_generated_tokens"] == TOKENS for row in answered)
    assert not list(open_store(record.root).list("drafts/attempts/"))
