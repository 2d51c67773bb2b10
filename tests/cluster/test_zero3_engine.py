"""SmolLM2-135M under ZeRO-3 on two workers: the export holds what was trained, and vLLM serves it.

All of it in bfloat16, as in a real run. Each pair of logits is bfloat16's rounding apart, which is
measured here as well: by how far transformers in bfloat16 is from transformers in float32.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cgd_ray.examples.objectives import build_example
from cgd_ray.examples.packing import pack
from cgd_ray.records import Example
from cgd_ray.settings import EMBEDDED_STUDENT, TrainSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import LocalStore
from cgd_ray.student import chat_tokenizer, student_source
from cgd_ray.training.metrics import read_metrics
from cgd_ray.training.task import TrainTask
from tests.support.engine_logits import engine_logits
from tests.support.records import chain
from tests.support.training_group import engine_probe, train_all

QUESTION = "State the final answer to the following arithmetic problem: 26 + 60 - 3 ="
ROUNDING = 2.0  # times the error of transformers in bfloat16


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> TrainTask:
    root = tmp_path_factory.mktemp("store")
    source = student_source(EMBEDDED_STUDENT, tmp_path_factory.mktemp("work"))
    tokenizer = chat_tokenizer(source)
    examples = []
    for a in range(4):
        made = build_example(
            "cgd",
            chain(f"What is {a} + 3?", f"{a} + 3 = {a}", "The sum is wrong.", f"{a} + 3 = {a + 3}"),
            tokenizer,
            128,
        )
        assert isinstance(made, Example)
        examples.append(made)
    commit_shard(LocalStore(str(root)), "examples", pack(examples, 128, None))
    train = TrainSettings(
        num_workers=2, zero_stage=3, batches_per_step=2, max_steps=2, learning_rate=5e-4
    )
    return TrainTask(train, 1, source, str(root), "examples", "smollm2", "card", False, 1)


@pytest.fixture(scope="module")
def probe(task) -> list[int]:
    return chat_tokenizer(task.source).encode_prompt([{"role": "user", "content": QUESTION}])


@pytest.fixture(scope="module")
def model_folder(task, probe) -> Path:
    train_all([task], 2, probe)
    return Path(task.root) / task.folder / "model"


def logits(folder: Path | str, probe: list[int], dtype: torch.dtype) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([probe])).logits[0].float().numpy()


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the root mean square difference of two arrays of logits."""
    return float(np.sqrt(np.mean((found - wanted) ** 2)))


def test_trained_exported_and_served_logits_are_equal(task, probe, model_folder):
    exact = logits(model_folder, probe, torch.float32)
    rounding = error(logits(model_folder, probe, torch.bfloat16), exact)
    before = logits(task.source, probe, torch.float32)
    assert error(engine_probe(task), exact) <= ROUNDING * rounding, "the training engine"
    (served,) = engine_logits({model_folder: probe}, "bfloat16").values()
    assert error(served, exact[:-1]) <= ROUNDING * rounding, "vLLM"
    assert error(before, exact) >= 3 * ROUNDING * rounding, "training did something"


def test_the_folder_is_plain_safetensors_in_bfloat16(task, model_folder):
    weights = load_file(model_folder / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    assert sum(w.numel() for w in weights.values()) == 134_515_008
    assert json.loads((model_folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert len(read_metrics(LocalStore(task.root), task.folder)) == 2
