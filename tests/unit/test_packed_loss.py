"""The loss of a packed batch is the loss of its documents, and no document sees another."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import LlamaForCausalLM

from cgd_ray.errors import UserError
from cgd_ray.training import attention
from cgd_ray.training.attention import document_attention
from cgd_ray.training.loss import target_loss_sum
from cgd_ray.training.order import num_steps, rows_of_step
from cgd_ray.training.schedule import learning_rate
from tests.support.packed_rows import CPU, documents, logits, packed, row
from tests.support.tiny_llama import VOCABULARY, tiny_llama


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny_llama().eval()


@pytest.fixture(scope="module")
def stock() -> LlamaForCausalLM:
    """The same weights under transformers' own attention."""
    return tiny_llama("eager").eval()


@pytest.mark.parametrize("lengths", [[2, 40, 7, 64, 3, 31], [5], [600, 20]])
def test_packed_loss_is_unpacked_loss(
    model: LlamaForCausalLM, stock: LlamaForCausalLM, lengths: list[int]
) -> None:
    """Each document is also run alone, by transformers' own attention, with all logits."""
    examples = documents(lengths)
    with torch.no_grad():
        together = target_loss_sum(model, row(examples)).item()
        alone = 0.0
        for example in examples:
            ids = torch.tensor([example.input_ids])
            full = stock(input_ids=ids, use_cache=False).logits[0]
            for place, flag in enumerate(example.loss_mask):
                if flag:
                    alone += cross_entropy(full[place - 1], ids[0, place]).item()
    num_targets = sum(sum(e.loss_mask) for e in examples)
    assert abs(together - alone) / num_targets <= 1e-5


@pytest.mark.parametrize("lengths", [[2, 40, 7], [64], [600, 20]])
def test_padding_changes_no_loss_and_no_gradient(
    model: LlamaForCausalLM, lengths: list[int]
) -> None:
    batch, weights = row(documents(lengths)), list(model.parameters())
    losses = [target_loss_sum(model, each) for each in (batch, batch.padded())]
    plain, padded = (torch.autograd.grad(loss, weights) for loss in losses)
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)
    for a, b in zip(padded, plain, strict=True):
        assert (a - b).abs().max().item() <= 1e-5 * b.abs().max().item()


def test_packed_gradients_are_unpacked_gradients() -> None:
    model, examples = tiny_llama().train(), documents([20, 3, 41, 12])
    target_loss_sum(model, row(examples)).backward()
    packed_gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for example in examples:
        target_loss_sum(model, row([example])).backward()
    for name, parameter in model.named_parameters():
        difference = (parameter.grad - packed_gradients[name]).abs().max().item()
        assert difference <= 1e-4 * parameter.grad.abs().max().item(), name


def test_the_loss_at_the_targets_is_that_of_the_full_logits(model: LlamaForCausalLM) -> None:
    batch = row(documents([30, 11, 22]))
    full = logits(model, batch)
    expected = cross_entropy(full[batch.predict_at_K], batch.target_ids_K, reduction="sum")
    with torch.no_grad():
        assert target_loss_sum(model, batch).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("lengths", [(40, 25, 31), (600, 25, 31)])
def test_no_document_sees_another(model: LlamaForCausalLM, lengths: tuple[int, ...]) -> None:
    first, second, third = documents(lengths)
    whole = row([first, second, third])
    starts = np.cumsum([0, *lengths])
    before = logits(model, whole)
    for changed in range(3):
        ids = whole.input_ids_1T.clone()
        place = slice(starts[changed], starts[changed + 1])
        ids[0, place] = (ids[0, place] + 1) % VOCABULARY
        after = logits(model, replace(whole, input_ids_1T=ids))
        for other in range(3):
            same = slice(starts[other], starts[other + 1])
            difference = (after[same] - before[same]).abs().max().item()
            if other == changed:
                assert difference > 1e-2
            else:
                assert difference <= 1e-6


def test_no_token_sees_a_later_one(model: LlamaForCausalLM) -> None:
    batch = row(documents([50]))
    before = logits(model, batch)
    ids = batch.input_ids_1T.clone()
    ids[0, 30] = (ids[0, 30] + 1) % VOCABULARY
    after = logits(model, replace(batch, input_ids_1T=ids))
    assert (after[:30] - before[:30]).abs().max().item() <= 1e-6
    assert (after[30] - before[30]).abs().max().item() > 1e-3


def test_a_document_is_the_same_at_any_place(model: LlamaForCausalLM) -> None:
    first, second = documents([33, 21])
    alone = logits(model, row([second]))
    assert (logits(model, row([first, second]))[33:] - alone).abs().max().item() <= 1e-5


@pytest.mark.parametrize("lengths", [[4, 9], [600], [1, 700, 3]])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("window", [None, 3, 9])
def test_attention_as_the_paper_writes_it(
    lengths: list[int], scaling: float | None, window: int | None
) -> None:
    generator = torch.Generator().manual_seed(1)
    total, heads, groups, width = sum(lengths), 4, 2, 8
    query = torch.randn(1, heads, total, width, generator=generator).requires_grad_()
    key, value = (
        torch.randn(1, groups, total, width, generator=generator).requires_grad_() for _ in range(2)
    )
    found, weights = document_attention(
        torch.nn.Identity(),
        query,
        key,
        value,
        None,
        document_lengths=lengths,
        scaling=scaling,
        sliding_window=window,
    )
    number = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    places = torch.arange(total)
    distance = places[:, None] - places
    seen = (number[:, None] == number) & (distance >= 0) & (distance < (window or total))
    keys, values = (t.repeat_interleave(heads // groups, 1) for t in (key, value))
    scores = query @ keys.transpose(2, 3) * (scaling or width**-0.5)
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values
    weighting = torch.randn(expected.shape, generator=generator)
    inputs = query, key, value
    gradients = torch.autograd.grad((found.transpose(1, 2) * weighting).sum(), inputs)
    wanted = torch.autograd.grad((expected * weighting).sum(), inputs)
    for one, other in zip(gradients, wanted, strict=True):
        assert (one - other).abs().max().item() <= 2e-5
    assert found.shape == (1, total, heads, width)
    assert (found.transpose(1, 2) - expected).abs().max().item() <= 1e-5
    assert weights is None


@pytest.mark.parametrize("window", [None, 9])
def test_attention_in_bfloat16_is_that_of_the_kernel(window: int | None) -> None:
    """The same factors, rounded to bfloat16, and float32 sums: as close as torch's own kernel."""
    generator = torch.Generator().manual_seed(1)
    shapes = (1, 4, 300, 8), (1, 2, 300, 8), (1, 2, 300, 8), (1, 300, 4, 8)
    *inputs, weighting = (torch.randn(s, generator=generator).bfloat16() for s in shapes)

    def gradients(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        parts = [part.to(dtype).requires_grad_() for part in inputs]
        found, _ = document_attention(
            torch.nn.Identity(), *parts, None, document_lengths=[300], sliding_window=window
        )
        return torch.autograd.grad(found, parts, weighting.to(dtype))

    before = torch.backends.mkldnn.matmul.fp32_precision  # pyright: ignore
    for one, other in zip(gradients(torch.bfloat16), gradients(torch.float32), strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - other).abs().max().item() <= 0.015 * other.abs().max().item()
    assert torch.backends.mkldnn.matmul.fp32_precision == before  # pyright: ignore


@pytest.mark.parametrize(("window", "scaling"), [(None, None), (3, 0.3), (9, None)])
def test_a_gpu_kernel_is_asked_for_the_same(
    monkeypatch: pytest.MonkeyPatch, window: int | None, scaling: float | None
) -> None:
    """The kernel is replaced by a loop that reads its arguments as torch documents them."""

    def kernel(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        edges: torch.Tensor,
        key_edges: torch.Tensor,
        longest: int,
        longest_key: int,
        *,
        scale: float | None,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> torch.Tensor:
        assert enable_gqa
        assert edges.dtype == torch.int32
        assert edges is key_edges
        assert longest == longest_key == max(edges.diff().tolist())
        assert window_size[1] == 0, "causal"
        outputs = []
        for start, end in itertools.pairwise(edges.tolist()):
            q, k, v = (t[start:end].transpose(0, 1) for t in (query, key, value))
            distance = torch.arange(end - start)[:, None] - torch.arange(end - start)
            left = window_size[0] if window_size[0] >= 0 else end
            seen = (distance >= 0) & (distance <= left)
            made = scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=True)
            outputs.append(made.transpose(0, 1))
        return torch.cat(outputs)

    generator = torch.Generator().manual_seed(1)
    lengths = [5, 1, 12]
    query = torch.randn(1, 4, 18, 8, generator=generator)
    key, value = (torch.randn(1, 2, 18, 8, generator=generator) for _ in range(2))

    def attend() -> torch.Tensor:
        return document_attention(
            torch.nn.Identity(),
            query,
            key,
            value,
            None,
            document_lengths=lengths,
            scaling=scaling,
            sliding_window=window,
        )[0]

    expected = attend()
    monkeypatch.setattr(attention, "_has_flash_kernel", lambda _: True)
    monkeypatch.setattr(attention, "varlen_attn", kernel)
    assert (attend() - expected).abs().max().item() <= 1e-5


@pytest.mark.parametrize(
    ("option", "word"), [({"softcap": 30.0}, "soft-capped"), ({"s_aux": torch.ones(2)}, "sinks")]
)
def test_attention_that_would_be_wrong_is_refused(option: dict[str, Any], word: str) -> None:
    states = torch.randn(1, 2, 5, 8)
    with pytest.raises(UserError, match=word):
        document_attention(
            torch.nn.Identity(), states, states, states, None, document_lengths=[5], **option
        )


def test_lengths_that_do_not_add_up_are_an_error(model: LlamaForCausalLM) -> None:
    batch = row(documents([10, 5]))
    with pytest.raises((RuntimeError, ValueError)):
        logits(model, replace(batch, document_lengths=[10, 4]))


def train(
    steps: int, max_documents: int | None, per_step: int = 2
) -> tuple[list[float], LlamaForCausalLM]:
    """Train as `training.loop` does, on one worker, with no Ray and no DeepSpeed."""
    torch.set_num_threads(1)
    model = tiny_llama().train()
    data = packed(
        documents([20, 9, 33, 15, 8, 40, 12, 27, 5, 18, 30, 22], seed=5), 64, max_documents
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    total = num_steps(len(data), per_step, 100, steps)
    losses: list[float] = []
    for step in range(total):
        rows = rows_of_step(step, len(data), per_step, seed=1)
        num_targets = int(data.num_targets[rows].sum())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total, 3e-3, 0.1)
        optimizer.zero_grad()
        loss_sum = 0.0
        for index in rows:
            loss = target_loss_sum(model, data.tensors(index, CPU))
            loss_sum += loss.item()
            (loss / num_targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss_sum / num_targets)
    return losses, model


def test_the_loss_curve_is_pinned(golden_json: Callable[[str, object], Any]) -> None:
    """Twenty steps on a CPU in float32: the kernels of two machines differ by far less."""
    losses, _ = train(20, None)
    assert losses[-1] < losses[0] - 0.5, "it learns"
    made = {"tolerance_nats": 1e-4, "losses": [round(loss, 6) for loss in losses]}
    pinned = golden_json("loss_curve.json", made)
    assert losses == pytest.approx(pinned["losses"], abs=pinned["tolerance_nats"])


def test_the_curve_of_whole_epochs_does_not_depend_on_packing() -> None:
    """With all documents in every step, packing only changes who computes together."""
    together, _ = train(5, None, per_step=100)
    alone, _ = train(5, 1, per_step=100)
    assert together == pytest.approx(alone, abs=1e-4)


def test_two_runs_are_equal() -> None:
    (first, one), (second, two) = train(5, None), train(5, None)
    assert first == second
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
