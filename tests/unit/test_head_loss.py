"""The head's loss: at the targets alone, in chunks, and for every way of making logits."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
)

from cgd_ray.training.attention import DOCUMENT_ATTENTION
from cgd_ray.training.loss import head_loss_sum, target_loss_sum
from tests.support.packed_rows import documents, logits, row
from tests.support.tiny_llama import VOCABULARY, tiny_llama


def head(num: int = 11, width: int = 6, vocabulary: int = 17) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(num, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocabulary, (num,), generator=generator)
    return [hidden.requires_grad_(), weight.requires_grad_(), targets]


@pytest.mark.parametrize("places_at_once", [1, 4, 11, 1000])
def test_chunks_of_the_head_change_nothing(places_at_once: int) -> None:
    hidden, weight, targets = head()
    expected = cross_entropy(hidden @ weight.T, targets, reduction="sum")
    wanted = torch.autograd.grad(0.3 * expected, (hidden, weight))
    loss = head_loss_sum(hidden, weight, targets, places_at_once * len(weight))
    found = torch.autograd.grad(0.3 * loss, (hidden, weight))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max().item() <= 1e-12


def test_a_sure_model_still_gets_a_gradient_in_bfloat16() -> None:
    """1 - p is small where p rounds to 1 in bfloat16: it must be taken before the rounding."""
    hidden = torch.ones(1, 1, dtype=torch.bfloat16)
    weight = torch.tensor([[8.0], [0.0]], dtype=torch.bfloat16, requires_grad=True)
    head_loss_sum(hidden, weight, torch.tensor([0])).backward()
    sure = 1 / (1 + np.exp(-8.0))
    assert weight.grad[0].item() == pytest.approx(sure - 1, rel=0.01)


def test_a_frozen_head_passes_gradients_on_and_takes_none() -> None:
    hidden, weight, targets = head()
    expected = torch.autograd.grad(
        cross_entropy(hidden @ weight.T, targets, reduction="sum"), hidden
    )
    frozen = weight.detach()
    head_loss_sum(hidden, frozen, targets, 40).backward()
    assert frozen.grad is None
    assert (hidden.grad - expected[0]).abs().max().item() <= 1e-12


def test_a_second_backward_is_an_error_not_a_wrong_gradient() -> None:
    loss = head_loss_sum(*head())
    loss.backward(retain_graph=True)
    with pytest.raises(AttributeError):
        loss.backward()


@pytest.mark.parametrize("tied", [True, False])
def test_weights_get_the_gradients_of_the_full_logits(tied: bool) -> None:
    model, batch = tiny_llama().train(), row(documents([30, 11, 22]))
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 0.9)
    names, weights = zip(*model.named_parameters(), strict=True)
    full = model(
        input_ids=batch.input_ids_1T,
        position_ids=batch.position_ids_1T,
        document_lengths=batch.document_lengths,
    ).logits[0]
    loss = cross_entropy(full[batch.predict_at_K], batch.target_ids_K, reduction="sum")
    wanted = torch.autograd.grad(loss, weights)
    found = torch.autograd.grad(target_loss_sum(model, batch), weights)
    assert len(names) == (20 if tied else 21)
    for name, a, b in zip(names, found, wanted, strict=True):
        assert (a - b).abs().max().item() <= 1e-5 * max(1.0, b.abs().max().item()), name


_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "attn_implementation": DOCUMENT_ATTENTION,
}


@pytest.mark.parametrize(
    "config",
    [
        GraniteConfig(**_SIZES, logits_scaling=4.0),
        Gemma2Config(**_SIZES, final_logit_softcapping=0.5, attn_logit_softcapping=None),
    ],
    ids=["scaled", "soft-capped"],
)
def test_logits_that_change_after_the_head_are_in_the_loss(config: PreTrainedConfig) -> None:
    torch.manual_seed(4)
    changing = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        changing.get_output_embeddings().weight.mul_(20.0)
        batch = row(documents([30, 11, 22]))
        full = logits(changing, batch)[batch.predict_at_K]
        expected = cross_entropy(full, batch.target_ids_K, reduction="sum").item()
        assert target_loss_sum(changing, batch).item() == pytest.approx(expected, rel=1e-5)


def test_arithmetic_on_logits_that_we_do_not_know_of_is_an_error() -> None:
    class Doubled(LlamaForCausalLM):
        def forward(self, *args: Any, **options: Any) -> Any:
            found = super().forward(*args, **options)
            found.logits = found.logits / 2.0
            return found

    model = tiny_llama()
    model.__class__ = Doubled
    batch = row(documents([30, 11]))
    with pytest.raises(TypeError):
        target_loss_sum(model, batch)
    model.__class__ = LlamaForCausalLM
    assert logits(model, batch).shape == (41, VOCABULARY), "the head is as it was"
