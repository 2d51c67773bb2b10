"""Training on a CPU: the process's settings, norms in fewer passes over memory, narrow products.

A GPU's counterpart is Liger (`liger.py`).
"""

from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

# They normalise in float32, round, then scale by the weight; others' arithmetic is their own.
_PLAIN_NORMS = frozenset(
    {"LlamaRMSNorm", "MistralRMSNorm", "MixtralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}
)

# Columns of a bfloat16 product that oneDNN computes with one thread of two, and twice as fast in
# two halves: 1.5 and 0.9 ms for (1024, 1536) x (1536, 576) on two cores with AMX.
_NARROW = range(400, 900)


def prepare_process(threads: int) -> None:
    """Set up this process for training on a CPU.

    Args:
        threads: that compute.
    """
    # Adam's second moments of small gradients are denormal, and arithmetic on them is many times
    # slower. Threads inherit this, so it comes before they start.
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)


def apply_lean_layers(model: PreTrainedModel) -> tuple[int, int]:
    """Let a model's RMS norms and narrow linear layers do the same in less, in place.

    Returns:
        How many norms and how many linear layers do.
    """
    norms: list[Any] = [m for m in model.modules() if type(m).__name__ in _PLAIN_NORMS]
    for norm in norms:
        norm.forward = partial(_normed, norm)
    head = model.get_output_embeddings()
    linears: list[Any] = [m for m in model.modules() if m is not head and _is_narrow(m)]
    for linear in linears:
        linear.forward = partial(_projected, linear)
    return len(norms), len(linears)


def _is_narrow(module: torch.nn.Module) -> bool:
    if type(module) is not torch.nn.Linear or module.bias is not None:
        return False
    narrow = module.in_features in _NARROW or module.out_features in _NARROW
    return narrow and module.weight.dtype == torch.bfloat16


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


def _projected(linear: torch.nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    return _Linear.apply(hidden, linear.weight)  # pyright: ignore


class _Linear(torch.autograd.Function):
    """A linear layer without bias whose products use all threads."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        hidden: torch.Tensor,
        weight_OI: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight_OI)
        return _product(hidden.flatten(0, -2), weight_OI.T).view(*hidden.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        hidden, weight_OI = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad
        grad_NO, hidden_NI = grad.flatten(0, -2), hidden.flatten(0, -2)
        return (
            _product(grad_NO, weight_OI).view_as(hidden) if wants_hidden else None,
            _weight_grad(grad_NO, hidden_NI) if wants_weight else None,
        )


def _weight_grad(grad_NO: torch.Tensor, hidden_NI: torch.Tensor) -> torch.Tensor:
    # oneDNN would read the narrower factor across its rows: 1.9 and 1.5 ms with 576 by 1536.
    narrow = grad_NO.shape[1] < hidden_NI.shape[1]
    grad_ON = grad_NO.T.contiguous() if narrow else grad_NO.T
    return grad_ON @ hidden_NI


def _product(a_NK: torch.Tensor, b_KM: torch.Tensor) -> torch.Tensor:
    columns = b_KM.shape[1]
    if columns not in _NARROW:
        return a_NK @ b_KM
    product = a_NK.new_empty(len(a_NK), columns)
    for half in (slice(columns // 2), slice(columns // 2, columns)):
        torch.mm(a_NK, b_KM[:, half], out=product[:, half])
    return product
