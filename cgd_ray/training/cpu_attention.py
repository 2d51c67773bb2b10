"""Attention within documents on a CPU: torch's kernel forward, blocks of queries backward.

Backward, some queries of a document at a time see the keys up to their own and no others, and the
heads that share keys are rows of one matrix product. Blocks end at multiples of some tokens,
because a matrix product of a new shape is compiled first. The arithmetic is that of the kernel's
own backward: factors in the weights' type, sums in float32. Nothing of size T x T is kept.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

_BLOCK = 128  # queries at a time: their scores stay in the cache
_GRAIN = 64  # tokens, of which documents are filled up to a multiple


def attention_on_cpu(
    query_1HTD: torch.Tensor,
    key_1GTD: torch.Tensor,
    value_1GTD: torch.Tensor,
    lengths: Sequence[int],
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Return causal attention within each document, shape (1, H, T, D).

    Args:
        query_1HTD: queries, documents end to end.
        key_1GTD: keys, which H / G heads share.
        value_1GTD: values.
        lengths: tokens of each document, adding up to T.
        scale: of the scores.
        window: tokens that a query sees, itself among them; None: all before it.
    """
    whole = query_1HTD, key_1GTD, value_1GTD
    return _Documents.apply(*whole, tuple(lengths), scale, window)  # pyright: ignore


class _Documents(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        query_1HTD: torch.Tensor,
        key_1GTD: torch.Tensor,
        value_1GTD: torch.Tensor,
        lengths: tuple[int, ...],
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        repeats = query_1HTD.shape[1] // key_1GTD.shape[1]
        parts = (
            query_1HTD,
            key_1GTD.repeat_interleave(repeats, 1),
            value_1GTD.repeat_interleave(repeats, 1),
        )
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        for document in zip(*(part.split(lengths, 2) for part in parts), strict=True):
            hidden = None
            length = document[0].shape[2]
            if window is not None and length > window:
                zeros = document[0].new_zeros(length, length)
                hidden = zeros.masked_fill_(_hidden(length, length, window)[:, 0], -torch.inf)
            found.append(
                torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                    *document, is_causal=hidden is None, attn_mask=hidden, scale=scale
                )
            )
        # In memory a token's heads are neighbours: what follows wants them so.
        output_1THD = torch.cat([output.transpose(1, 2) for output, _ in found], 1)
        output_1HTD = output_1THD.transpose(1, 2)
        logsumexp_1HT = torch.cat([logsumexp for _, logsumexp in found], 2)
        ctx.save_for_backward(query_1HTD, key_1GTD, value_1GTD, output_1HTD, logsumexp_1HT)
        ctx.settings = lengths, scale, window
        return output_1HTD

    @staticmethod
    def backward(ctx: Any, grad_1HTD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        query_1HTD, key_1GTD, value_1GTD, output_1HTD, logsumexp_1HT = ctx.saved_tensors
        lengths, scale, window = ctx.settings
        dtype, groups = query_1HTD.dtype, key_1GTD.shape[1]
        wide = torch.promote_types(dtype, torch.float32)
        of_queries = query_1HTD, grad_1HTD, output_1HTD, logsumexp_1HT[..., None]
        of_keys = key_1GTD, value_1GTD
        queries = [_filled_up(part, lengths, groups) for part in of_queries]
        keys = [_rows(_filled_up(part, lengths, groups), wide) for part in of_keys]
        query_grad = torch.empty_like(queries[0])
        key_grad, value_grad = (torch.zeros_like(part) for part in keys)
        scores, score_grads = (_Scratch(wide) for _ in range(2))
        with _products_of(dtype):
            for first, start, end in _blocks(lengths, window):
                query, grad, output, logsumexp = (_rows(part[start:end], wide) for part in queries)
                key, value = (part[:, first:end].contiguous() for part in keys)
                shape = groups, query.shape[1], end - first
                key.mul_(scale)
                p_GQK = torch.bmm(query, key.transpose(1, 2), out=scores.of(shape))
                p_GQK.sub_(logsumexp).exp_()
                # Hidden last: exp is many times slower where it meets infinities.
                masked = end - (start if window is None else first)
                hidden = _hidden(end - start, masked, window)
                p_GQK[:, :, -masked:].unflatten(1, (end - start, -1)).masked_fill_(hidden, 0)
                value_grad[:, first:end].baddbmm_(p_GQK.transpose(1, 2), grad)
                d_GQK = torch.bmm(grad, value.transpose(1, 2), out=score_grads.of(shape))
                d_GQK.sub_(output.mul_(grad).sum(-1, keepdim=True)).mul_(p_GQK)
                key_grad[:, first:end].baddbmm_(d_GQK.transpose(1, 2), query)
                found = query_grad[start:end].transpose(0, 1)
                found.copy_(torch.bmm(d_GQK, key).view(found.shape))
        key_grad.mul_(scale)
        grads = query_grad.flatten(1, 2), key_grad.transpose(0, 1), value_grad.transpose(0, 1)
        return *(_cut_back(part, lengths, dtype) for part in grads), None, None, None


class _Scratch:
    """Memory for one tensor at a time: the cache knows it, where it would not know new memory."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._values = torch.empty(0, dtype=dtype)

    def of(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return a tensor of this shape in place of the last one."""
        size = math.prod(shape)
        if self._values.numel() < size:
            self._values = self._values.new_empty(size)
        return self._values[:size].view(shape)


def _blocks(lengths: Sequence[int], window: int | None) -> Iterator[tuple[int, int, int]]:
    """Yield each block's first key, first query and end, in documents that are filled up."""
    begin = 0
    for length in lengths:
        stop = begin + _whole(length)
        for start in range(begin, stop, _BLOCK):
            seen = start - begin if window is None else min(window - 1, start - begin)
            yield start - _whole(seen), start, min(start + _BLOCK, stop)
        begin = stop


def _whole(length: int) -> int:
    return -(-length // _GRAIN) * _GRAIN


def _filled_up(part_1HTD: torch.Tensor, lengths: Sequence[int], groups: int) -> torch.Tensor:
    """Return documents of whole grains, zeros at their ends, shape (T, G, H / G, D)."""
    _, heads, _, width = part_1HTD.shape
    filled_THD = part_1HTD.new_zeros(sum(map(_whole, lengths)), heads, width)
    start = 0
    for document in part_1HTD[0].transpose(0, 1).split(lengths):
        filled_THD[start : start + len(document)] = document
        start += _whole(len(document))
    return filled_THD.unflatten(1, (groups, -1))


def _rows(part_TGRD: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return heads that share keys as rows of one matrix, shape (G, T * R, D)."""
    part_GTRD = part_TGRD.transpose(0, 1)
    rows = part_GTRD.new_empty(part_GTRD.shape, dtype=dtype)
    return rows.copy_(part_GTRD).flatten(1, 2)


def _cut_back(part_THD: torch.Tensor, lengths: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return documents without what filled them up, shape (1, H, T, D)."""
    whole = part_THD.split([_whole(length) for length in lengths])
    documents = [part[:length] for part, length in zip(whole, lengths, strict=True)]
    return torch.cat(documents).to(dtype).transpose(0, 1)[None]


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


@lru_cache(maxsize=64)
def _hidden(num_queries: int, num_keys: int, window: int | None) -> torch.Tensor:
    """Return which keys the last queries do not see, shape (queries, 1, keys).

    Args:
        num_queries: the last tokens of the keys.
        num_keys: in all.
        window: tokens that a query sees, itself among them; None: all before it.
    """
    query_Q1 = torch.arange(num_keys - num_queries, num_keys)[:, None]
    key_K = torch.arange(num_keys)
    hidden_QK = key_K > query_Q1
    if window is not None:
        hidden_QK |= key_K <= query_Q1 - window
    return hidden_QK[:, None]
