"""Attention within documents: no token of a packed batch sees another document.

Registered with transformers as an attention implementation. A GPU's flash kernel takes a row's
documents in one call; elsewhere each document is one causal call. No T x T mask exists either way,
and packing changes neither result nor cost of a document.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from cgd_ray.errors import UserError

DOCUMENT_ATTENTION = "cgd_documents"
_QUERIES_AT_ONCE = 128  # of a document on a CPU: their scores stay in its cache


def document_attention(
    module: torch.nn.Module,
    query_1HTD: torch.Tensor,
    key_1GTD: torch.Tensor,
    value_1GTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_lengths: Sequence[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,  # noqa: ANN401 - whatever else transformers passes to attention
) -> tuple[torch.Tensor, None]:
    """Return attention over one packed batch, shape (1, T, H, D).

    H query heads share G key heads; T tokens are the documents end to end.

    Args:
        module: the calling layer.
        query_1HTD: queries.
        key_1GTD: keys.
        value_1GTD: values.
        attention_mask: unused; documents say all.
        document_lengths: tokens of each document, adding up to T.
        scaling: of the scores; None: 1 / sqrt(D).
        dropout: of the weights.
        sliding_window: tokens that a query sees, itself among them; None: all before it.
        softcap: bound of the scores; refused.
        s_aux: attention sinks; refused.

    Raises:
        UserError: the model's attention is of a kind that this one does not compute.
    """
    if softcap is not None or s_aux is not None:
        what = "soft-capped scores" if s_aux is None else "attention sinks"
        raise UserError(
            f"{type(module).__name__} uses {what}, which document attention does not compute: "
            "choose a student.model of another family"
        )
    lengths = list(document_lengths)
    if dropout == 0 and _has_flash_kernel(query_1HTD):
        whole = query_1HTD, key_1GTD, value_1GTD
        return _all_at_once(*whole, tuple(lengths), scaling, sliding_window), None
    documents = zip(
        query_1HTD.split(lengths, 2),
        key_1GTD.split(lengths, 2),
        value_1GTD.split(lengths, 2),
        strict=True,
    )
    outputs = [
        _one_document(query, key, value, scaling, dropout, sliding_window)
        for query, key, value in documents
    ]
    return torch.cat(outputs, 2).transpose(1, 2), None


def _has_flash_kernel(query_1HTD: torch.Tensor) -> bool:
    """Return whether torch's flash kernel for documents of any length takes these queries."""
    width = query_1HTD.shape[-1]
    return (
        query_1HTD.is_cuda
        and query_1HTD.dtype in (torch.bfloat16, torch.float16)
        and width <= 256
        and width % 8 == 0
        and torch.cuda.get_device_capability(query_1HTD.device) >= (8, 0)
    )


def _all_at_once(
    query_1HTD: torch.Tensor,
    key_1GTD: torch.Tensor,
    value_1GTD: torch.Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Return the attention of all documents in one call, shape (1, T, H, D)."""
    query_THD, key_TGD, value_TGD = (
        part[0].transpose(0, 1) for part in (query_1HTD, key_1GTD, value_1GTD)
    )
    edges, longest = _edges(lengths, query_1HTD.device), max(lengths)
    # The kernel counts the tokens to the left of the query, the window also the query itself.
    left = -1 if sliding_window is None else sliding_window - 1
    output_THD = varlen_attn(
        query_THD,
        key_TGD,
        value_TGD,
        edges,
        edges,
        longest,
        longest,
        scale=scaling,
        window_size=(left, 0),
        enable_gqa=True,
    )
    assert isinstance(output_THD, torch.Tensor)
    return output_THD[None]


@lru_cache(maxsize=8)  # each layer of a step asks for the same
def _edges(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return where each document begins, and where the last one ends."""
    ends = torch.tensor((0, *lengths)).cumsum(0)
    return ends.to(device=device, dtype=torch.int32)


def _one_document(
    query_1HTD: torch.Tensor,
    key_1GTD: torch.Tensor,
    value_1GTD: torch.Tensor,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
) -> torch.Tensor:
    """Return the attention of one document, shape (1, H, T, D)."""
    if query_1HTD.device.type == "cpu" and dropout == 0:
        scale = query_1HTD.shape[3] ** -0.5 if scaling is None else scaling
        whole = query_1HTD, key_1GTD, value_1GTD
        return _DocumentOnCPU.apply(*whole, scale, sliding_window)  # pyright: ignore
    window = _window(query_1HTD, sliding_window)
    return scaled_dot_product_attention(
        query_1HTD,
        key_1GTD,
        value_1GTD,
        attn_mask=window,
        dropout_p=dropout,
        is_causal=window is None,
        scale=scaling,
        enable_gqa=True,
    )


class _DocumentOnCPU(torch.autograd.Function):
    """The attention of one document on a CPU, shape (1, H, T, D): the kernel forward, ours back.

    Backward, some queries at a time see the keys up to their own and no others, and the heads that
    share keys are rows of one matrix product. The arithmetic is that of the kernel's own backward:
    factors in the weights' type, sums in float32. Nothing of size T x T is kept in between.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        query_1HTD: torch.Tensor,
        key_1GTD: torch.Tensor,
        value_1GTD: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        repeats = query_1HTD.shape[1] // key_1GTD.shape[1]
        sees = _window(query_1HTD, window)
        output_1HTD, logsumexp_1HT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query_1HTD,
            key_1GTD.repeat_interleave(repeats, 1),
            value_1GTD.repeat_interleave(repeats, 1),
            is_causal=sees is None,
            attn_mask=None if sees is None else sees.to(query_1HTD.dtype).log(),
            scale=scale,
        )
        ctx.save_for_backward(query_1HTD, key_1GTD, value_1GTD, output_1HTD, logsumexp_1HT)
        ctx.scale, ctx.window = scale, None if sees is None else window
        return output_1HTD

    @staticmethod
    def backward(ctx: Any, grad_1HTD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        query_1HTD, key_1GTD, value_1GTD, output_1HTD, logsumexp_1HT = ctx.saved_tensors
        dtype, length = query_1HTD.dtype, query_1HTD.shape[2]
        wide = torch.promote_types(dtype, torch.float32)
        groups = key_1GTD.shape[1]
        query_GRTD, output_GRTD, grad_GRTD, logsumexp_GRT1 = (
            part.reshape(groups, -1, length, part.shape[3])
            for part in (query_1HTD, output_1HTD, grad_1HTD, logsumexp_1HT[..., None])
        )
        key_GTD, value_GTD = key_1GTD[0].to(wide), value_1GTD[0].to(wide)
        mean_GRT1 = (output_GRTD.to(wide) * grad_GRTD).sum(-1, keepdim=True)
        query_grad_GRTD = torch.empty_like(query_GRTD)
        key_grad_GTD, value_grad_GTD = torch.zeros_like(key_GTD), torch.zeros_like(value_GTD)
        with _products_of(dtype):
            for start in range(0, length, _QUERIES_AT_ONCE):
                end = min(start + _QUERIES_AT_ONCE, length)
                first = 0 if ctx.window is None else max(0, start + 1 - ctx.window)
                query, grad, mean, logsumexp = (
                    part[:, :, start:end].to(wide).flatten(1, 2)
                    for part in (query_GRTD, grad_GRTD, mean_GRT1, logsumexp_GRT1)
                )
                query = query * ctx.scale
                key, value = key_GTD[:, first:end], value_GTD[:, first:end]
                p_GQK = (query @ key.transpose(1, 2)).sub_(logsumexp).exp_()
                # Hidden last: exp is many times slower where it meets infinities.
                masked = end - (start if ctx.window is None else first)
                p_GQK[:, :, -masked:].masked_fill_(
                    _hidden(end - start, masked, ctx.window, query_GRTD.shape[1]), 0
                )
                value_grad_GTD[:, first:end].baddbmm_(p_GQK.transpose(1, 2), grad)
                grad_GQK = (grad @ value.transpose(1, 2)).sub_(mean).mul_(p_GQK)
                key_grad_GTD[:, first:end].baddbmm_(grad_GQK.transpose(1, 2), query)
                query_grad = (grad_GQK @ key).mul_(ctx.scale)
                query_grad_GRTD[:, :, start:end] = query_grad.unflatten(1, (-1, end - start))
        grads = query_grad_GRTD.view_as(query_1HTD), key_grad_GTD[None], value_grad_GTD[None]
        return *(grad.to(dtype) for grad in grads), None, None


@contextmanager
def _products_of(dtype: torch.dtype) -> Iterator[None]:
    """Round the factors of float32 matrix products to bfloat16 if that is the type they came in."""
    matmul: Any = torch.backends.mkldnn.matmul  # pyright: ignore - torch's stubs lack it
    before = matmul.fp32_precision
    if dtype == torch.bfloat16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@lru_cache(maxsize=64)  # each layer asks for those of the step's documents
def _hidden(num_queries: int, num_keys: int, window: int | None, repeats: int) -> torch.Tensor:
    """Return which keys the last queries do not see, shape (repeats * queries, keys)."""
    last_QK = torch.arange(num_keys - num_queries, num_keys)[:, None]
    keys_K = torch.arange(num_keys)
    hidden_QK = keys_K > last_QK
    if window is not None:
        hidden_QK |= keys_K <= last_QK - window
    return hidden_QK.repeat(repeats, 1)


def _window(query_1HTD: torch.Tensor, sliding_window: int | None) -> torch.Tensor | None:
    """Return who sees whom in a document longer than the window, shape (T, T); None: all before."""
    length = query_1HTD.shape[2]
    if sliding_window is None or length <= sliding_window:
        return None
    places = torch.arange(length, device=query_1HTD.device)
    distance_TT = places[:, None] - places[None]
    return (distance_TT >= 0) & (distance_TT < sliding_window)


def register() -> None:
    """Make `attn_implementation=DOCUMENT_ATTENTION` known to transformers."""
    AttentionInterface.register(DOCUMENT_ATTENTION, document_attention)
