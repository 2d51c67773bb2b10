"""The memory formula: against published figures, against autograd, and as the docs print it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cgd_ray.settings import LoraSettings, TrainSettings
from cgd_ray.training.attention import DOCUMENT_ATTENTION, register
from cgd_ray.training.batch import BatchTensors
from cgd_ray.training.lora import add_adapters
from cgd_ray.training.loss import target_loss_sum
from cgd_ray.training.memory import (
    CHUNK_VALUES,
    EMBEDDED_SHAPE,
    HUB_SHAPES,
    MemorySettings,
    activation_bytes,
    estimate_memory,
    layer_bytes_a_token,
    logit_bytes,
    memory_settings,
    model_shape,
)

DOCS = Path(__file__).parents[2] / "docs" / "training.md"
SHAPES = dict(zip(("1B", "8B", "70B"), HUB_SHAPES.values(), strict=True))
SMALL: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}


def test_parameters_are_those_of_the_published_models() -> None:
    """SmolLM2-135M, Llama 3.2 1B, 3.1 8B and 3.1 70B."""
    counts = [shape.num_parameters for shape in (EMBEDDED_SHAPE, *SHAPES.values())]
    assert counts == [134_515_008, 1_235_814_400, 8_030_261_248, 70_553_706_496]


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_states_are_those_of_the_zero_paper(stage: int, gigabytes: float) -> None:
    """Figure 1 there: 7.5 B parameters in 16 bits on 64 workers."""
    shape = SHAPES["8B"]
    found = estimate_memory(shape, MemorySettings(stage, 64, 1))
    a_parameter = (found.states + found.gradients) / shape.num_parameters
    assert 7.5 * a_parameter == pytest.approx(gigabytes, abs=0.06)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 2), (torch.float32, 4)])
def test_activations_are_what_autograd_keeps(
    dtype: torch.dtype, width: int, checkpointing: bool
) -> None:
    """Documents are long enough for the flash kernel, which the formula is about."""
    register()
    shape, tokens = model_shape(SMALL), 1200
    config = LlamaConfig(**SMALL, attn_implementation=DOCUMENT_ATTENTION)
    model = LlamaForCausalLM(config).to(dtype).train()
    assert model.num_parameters() == shape.num_parameters
    if checkpointing:
        model.gradient_checkpointing_enable()
    settings = MemorySettings(
        0, 1, tokens, bytes_a_value=width, gradient_checkpointing=checkpointing
    )
    expected = activation_bytes(shape, settings)
    if checkpointing:  # a layer is computed again only in the backward pass
        expected -= tokens * layer_bytes_a_token(shape, width)
    assert kept_bytes(model, tokens) == pytest.approx(expected, rel=0.01)


def kept_bytes(model: LlamaForCausalLM, tokens: int) -> int:
    """Return the bytes that a forward pass keeps beside the weights."""
    fixed = [*model.parameters(), *model.buffers()]
    known = {tensor.untyped_storage().data_ptr() for tensor in fixed}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in known:
            kept[pointer] = tensor
        return tensor

    ids = torch.arange(tokens) % 2048
    batch = BatchTensors(
        ids[None],
        (torch.arange(tokens) % 600)[None],
        torch.arange(tokens - 1),
        ids[1:],
        [600] * (tokens // 600),
    )
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = target_loss_sum(model, batch)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_logits_are_bounded_by_the_chunk() -> None:
    shape = SHAPES["8B"]
    head = shape.vocabulary * shape.hidden_size * 2
    short, long = (logit_bytes(shape, MemorySettings(3, 8, n)) for n in (100, 100_000))
    assert short == 100 * shape.vocabulary * 6 + head
    assert long == CHUNK_VALUES * 6 + head


def test_adapters_shrink_all_but_the_weights() -> None:
    shape = SHAPES["8B"]
    whole = estimate_memory(shape, MemorySettings(0, 1, 4096))
    adapters = estimate_memory(shape, MemorySettings(0, 1, 4096, num_trainable=20_000_000))
    assert adapters.weights == whole.weights
    assert adapters.optimizer == 20e6 * 12
    assert adapters.peak < whole.peak / 3


def test_adapters_are_counted_as_peft_makes_them() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    add_adapters(model, LoraSettings(rank=4), 1)
    found = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found == model_shape(SMALL).num_adapter_parameters(4)


def test_settings_become_those_of_the_formula() -> None:
    train = TrainSettings(num_workers=(2, 4), batches_per_step=4, zero_stage=2, dtype="float32")
    assert memory_settings(train, EMBEDDED_SHAPE, 512) == MemorySettings(2, 2, 512, bytes_a_value=4)
    adapters = TrainSettings(lora=LoraSettings(rank=8))
    assert memory_settings(adapters, EMBEDDED_SHAPE, 512).num_trainable == 2_442_240


def test_offload_leaves_weights_and_activations() -> None:
    shape = SHAPES["8B"]
    found = estimate_memory(shape, MemorySettings(3, 8, 4096, offload_optimizer=True))
    assert (found.optimizer, found.update) == (0, 0)
    assert found.weights == shape.num_parameters * 2 / 8


def rows_of_docs() -> list[str]:
    """Return the rows of the table in docs/training.md."""
    rows: list[str] = []
    for name, stage, workers, checkpointing in [
        ("1B", 0, 1, False),
        ("1B", 1, 2, True),
        ("1B", 1, 8, False),
        ("8B", 0, 1, True),
        ("8B", 2, 8, True),
        ("8B", 3, 8, False),
        ("8B", 3, 8, True),
        ("8B", 3, 16, True),
        ("70B", 3, 8, True),
        ("70B", 3, 16, True),
        ("70B", 3, 32, True),
        ("70B", 3, 64, True),
    ]:
        settings = MemorySettings(stage, workers, 4096, 1 / 3, gradient_checkpointing=checkpointing)
        found = estimate_memory(SHAPES[name], settings)
        parts = [found.states, found.gradients, found.buckets, found.activations]
        figures = [*parts, found.logits, found.update, found.peak]
        again = "yes" if checkpointing else "no"
        cells = [name, str(stage), str(workers), again, *(f"{x / 1e9:.1f}" for x in figures)]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def test_the_page_shows_what_the_formula_says() -> None:
    text = DOCS.read_text(encoding="utf-8")
    missing = [row for row in rows_of_docs() if row not in text]
    assert not missing, "\n".join(missing)
