"""Adapters: what is trained, where it starts, and what merging them gives."""

from collections.abc import Iterator

import pytest
import torch

from cgd_ray.settings import LoraSettings
from cgd_ray.training.lora import add_adapters, merged
from tests.support.tiny_llama import tiny_llama

IDS = torch.arange(5, 25)[None]
LORA = LoraSettings(rank=3, alpha=12, dropout=0.5, targets=("q_proj", "down_proj"))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, document_lengths=[IDS.shape[1]]).logits


@pytest.fixture
def adapted() -> Iterator[torch.nn.Module]:
    model = tiny_llama()
    add_adapters(model, LORA, seed=1)
    yield model


def test_the_first_step_starts_from_the_student_as_it_is(adapted: torch.nn.Module) -> None:
    assert torch.equal(logits(adapted), logits(tiny_llama()))
    assert type(adapted) is type(tiny_llama()), "no wrapper: forward and loss stay as they are"


def test_only_the_adapters_of_the_targets_are_trained(adapted: torch.nn.Module) -> None:
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    layers = {name.partition(".lora_")[0] for name in trained}
    parts = ("self_attn.q_proj", "mlp.down_proj")
    assert layers == {f"model.layers.{i}.{part}" for i in range(2) for part in parts}
    assert len(trained) == 2 * len(layers)


def test_without_targets_every_linear_layer_but_the_head_gets_adapters() -> None:
    model = tiny_llama()
    add_adapters(model, LoraSettings(rank=2), seed=1)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 * 2 * 7, "two matrices, two layers of seven"
    assert not any("lm_head" in name for name in trained)


def test_every_worker_draws_the_same_adapters() -> None:
    torch.manual_seed(99)
    first, second = tiny_llama(), tiny_llama()
    add_adapters(first, LORA, seed=1)
    torch.rand(5)
    add_adapters(second, LORA, seed=1)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_merged_weights_are_the_model_with_adapters(adapted: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    plain = tiny_llama()
    before = logits(plain)
    plain.load_state_dict(merged(adapted.state_dict(), LORA))
    assert (logits(plain) - logits(adapted)).abs().max().item() <= 1e-4
    assert (logits(plain) - before).abs().max().item() >= 0.1
