"""Attention within documents: no token of a packed batch sees another document.

Registered with transformers as an attention implementation. A GPU's flash kernel takes a row's
documents in one call; elsewhere each document is one causal call. No T x T mask exists either way,
and packing changes neither result nor cost of a document.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from cgd_ray.errors import UserError
from cgd_ray.training.cpu_attention import attention_on_cpu

DOCUMENT_ATTENTION = "cgd_documents"


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
    if dropout == 0 and query_1HTD.device.type == "cpu":
        scale = query_1HTD.shape[3] ** -0.5 if scaling is None else scaling
        whole = query_1HTD, key_1GTD, value_1GTD
        output_1HTD = attention_on_cpu(*whole, lengths, scale, sliding_window)
        return output_1HTD.transpose(1, 2), None
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
