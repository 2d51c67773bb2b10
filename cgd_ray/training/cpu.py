"""Training on a CPU: the process's settings, and norms in fewer passes over memory.

A GPU's counterpart is Liger (`liger.py`).
"""

import ctypes
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEPT_BYTES, _GROWN_BYTES = 2**31 - 1, 2**26

# They normalise in float32, round, then scale by the weight; others' arithmetic is their own.
_PLAIN_NORMS = frozenset(
    {"LlamaRMSNorm", "MistralRMSNorm", "MixtralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}
)


def prepare_process(threads: int) -> None:
    """Set up this process for training on a CPU.

    Args:
        threads: that compute.
    """
    # Adam's second moments of small gradients are denormal, and arithmetic on them is many times
    # slower. Threads inherit this, so it comes before they start.
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    # Else a step's memory goes back to the system at its end, and comes back page by page.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TOP_PAD, _GROWN_BYTES)
        mallopt(_M_MMAP_MAX, 0)


def apply_lean_norms(model: PreTrainedModel) -> int:
    """Let a model's RMS norms keep and read less, in place; return how many do."""
    norms: list[Any] = [m for m in model.modules() if type(m).__name__ in _PLAIN_NORMS]
    for norm in norms:
        norm.forward = partial(_normed, norm)
    return len(norms)


def _normed(norm: Any, hidden: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - of several classes
    return _RMSNorm.apply(hidden, norm.weight, norm.variance_epsilon)  # pyright: ignore


class _RMSNorm(torch.autograd.Function):
    """Keeps its input and a number a token, where autograd keeps three copies of the input."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        hidden: torch.Tensor,
        weight_D: torch.Tensor,
        epsilon: float,
    ) -> torch.Tensor:
        wide = hidden.float()
        mean = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_() / wide.shape[-1]
        scale = mean.add_(epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight_D, scale)
        return (wide * scale).to(hidden.dtype) * weight_D

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        hidden, weight_D, scale = ctx.saved_tensors
        normed, wide = hidden * scale, grad.float()
        product_ND = (wide * normed).flatten(0, -2)
        mean = (product_ND @ weight_D.float()).view_as(scale) / -hidden.shape[-1]
        hidden_grad = (wide * weight_D).addcmul_(normed, mean).mul_(scale)
        return hidden_grad.to(hidden.dtype), product_ND.sum(0).to(weight_D.dtype), None
