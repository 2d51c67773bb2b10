"""The update in parts is AdamW on float32 masters, clipped by the norm of all gradients."""

from types import SimpleNamespace

import pytest
import torch

from cgd_ray.training import update

SHAPES = [(7, 3), (40,), (2, 2), (9, 5)]


def wrapped(clip_grad: float) -> SimpleNamespace:
    """Return what DeepSpeed's optimiser offers, with weights of random values."""
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(*s, generator=generator).bfloat16().requires_grad_() for s in SHAPES]
    masters = [w.detach().float().requires_grad_() for w in weights]
    skipped: list[bool] = []
    return SimpleNamespace(
        fp16_groups=[weights[:3], weights[3:]],
        fp32_groups=[masters[:3], masters[3:]],
        optimizer=torch.optim.AdamW(masters, lr=0.1, betas=(0.9, 0.95), weight_decay=0.1),
        clip_grad=clip_grad,
        skipped=skipped,
        _skip_invalid_grad_norm=lambda: bool(skipped.append(True)) or True,
    )


def give_gradients(wrapper: SimpleNamespace, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for weights in wrapper.fp16_groups:
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator).bfloat16()
    wrapper.fp16_groups[0][2].grad = None


@pytest.mark.parametrize("values_at_once", [1, 45, 10**6])
@pytest.mark.parametrize("clip_grad", [0.0, 0.5, 1e6])
def test_parts_change_nothing(
    monkeypatch: pytest.MonkeyPatch, values_at_once: int, clip_grad: float
) -> None:
    monkeypatch.setattr(update, "UPDATED_VALUES", values_at_once)
    found, expected = wrapped(clip_grad), wrapped(clip_grad)
    update.update_in_parts(found)
    for step in range(3):
        give_gradients(found, step)
        give_gradients(expected, step)
        masters = [m for group in expected.fp32_groups for m in group]
        weights = [w for group in expected.fp16_groups for w in group]
        for master, weight in zip(masters, weights, strict=True):
            master.grad = torch.zeros_like(master) if weight.grad is None else weight.grad.float()
        norm = torch.linalg.vector_norm(torch.cat([m.grad.flatten() for m in masters])).item()
        if clip_grad:
            torch.nn.utils.clip_grad_norm_(masters, clip_grad)
        expected.optimizer.step()
        assert found.step() is False
        assert found._global_grad_norm == pytest.approx(norm, rel=1e-6)
        for group, wanted in zip(found.fp32_groups, expected.fp32_groups, strict=True):
            for a, b in zip(group, wanted, strict=True):
                assert a.grad is None
                assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)
        for group, wanted in zip(found.fp16_groups, found.fp32_groups, strict=True):
            for a, b in zip(group, wanted, strict=True):
                assert torch.equal(a, b.bfloat16())


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_gradient_that_is_not_finite_moves_nothing(bad: float) -> None:
    wrapper = wrapped(1.0)
    before = [m.clone() for group in wrapper.fp32_groups for m in group]
    update.update_in_parts(wrapper)
    give_gradients(wrapper, 0)
    wrapper.fp16_groups[1][0].grad[0, 0] = bad
    assert wrapper.step() is True
    assert wrapper.skipped == [True]
    after = [m for group in wrapper.fp32_groups for m in group]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
