"""The memory formula against the tensors that DeepSpeed's engine holds."""

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from cgd_ray.training.memory import MemorySettings, estimate_memory, model_shape
from tests.support.memory_probe import probe_states
from tests.support.tiny_student import save_tokenizer

SHAPE: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}
# Of all bytes. ZeRO-3 keeps weights of less than 10^5 values gathered: much of so small a model.
TOLERANCE = {0: 0.01, 1: 0.01, 2: 0.01, 3: 0.06}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("student")
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(target)
    save_tokenizer(target)
    return target


@pytest.mark.parametrize(("dtype", "width", "workers"), [("bfloat16", 2, 2), ("float32", 4, 1)])
def test_the_engine_holds_what_the_formula_says(folder, dtype, width, workers):
    shape = model_shape(SHAPE)
    found = probe_states(folder, dtype, workers, [0, 1, 2, 3])
    for stage, moments in found.items():
        settings = MemorySettings(stage, workers, 16, bytes_a_value=width)
        expected = estimate_memory(shape, settings)
        # ZeRO-3 gives gradients a place of their own that stays; ZeRO-1 holds all of them only
        # until the last has come, and then gives the others' share away.
        idle = expected.states + (expected.gradients if stage == 3 else 0)
        wanted = {
            "backward" if stage == 1 else "after_backward": expected.states + expected.gradients,
            "update": expected.states + expected.update,
            "after_step": idle,
        }
        for moment, num_bytes in wanted.items():
            held = moments[moment][0]
            assert held == pytest.approx(num_bytes, rel=TOLERANCE[stage]), (stage, moment)
        gathered = shape.num_parameters * width if stage == 3 else 0
        assert moments["backward"][1] == expected.buckets - gathered
