"""The only loss: -log p(target | context), at target tokens alone (paper, section 3).

The language-model head runs at the K places that predict a target and nowhere else, a chunk of
logits at a time: in CGD most tokens are context, and logits are the largest tensor of a step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from cgd_ray.training.batch import BatchTensors
from cgd_ray.training.memory import CHUNK_VALUES

_CACHED_VALUES = 2**21  # logits that a CPU's cache holds in float32

# How families change their logits after the head, by the names in their configurations.
_AFTER_THE_HEAD = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
    "unpadded_vocab_size",
)


def target_loss_sum(model: Any, batch: BatchTensors) -> torch.Tensor:  # noqa: ANN401 - or an engine
    """Return the cross-entropy summed over a packed batch's target tokens, in nats.

    Families that change their logits after the head (Gemma's soft cap, Granite's scale) have all
    K x V logits computed at once; the loss is right for them too.

    Args:
        model: a transformers causal language model, as it is, with adapters or in an engine.
        batch: the packed batch.
    """
    inputs = {
        "input_ids": batch.input_ids_1T,
        "position_ids": batch.position_ids_1T,
        "logits_to_keep": batch.predict_at_K,
        "document_lengths": batch.document_lengths,
        "use_cache": False,
    }
    head = model.get_output_embeddings()
    if not _gives_logits_as_they_are(model, head):
        logits_1KV = model(**inputs).logits
        return cross_entropy(logits_1KV[0].float(), batch.target_ids_K, reduction="sum")
    with _loss_for_logits(head, batch.target_ids_K):
        (loss,) = model(**inputs).logits
    return loss


def _gives_logits_as_they_are(model: Any, head: torch.nn.Module) -> bool:  # noqa: ANN401
    """Return whether the model's logits are its plain linear head's output, unchanged."""
    config = getattr(model, "module", model).config.get_text_config()
    changed = any(getattr(config, name, None) not in (None, 1.0) for name in _AFTER_THE_HEAD)
    return not changed and type(head) is torch.nn.Linear and head.bias is None


@contextmanager
def _loss_for_logits(head: torch.nn.Linear, target_ids_K: torch.Tensor) -> Iterator[None]:
    """Let the head return the loss, in a tuple, where it would return logits.

    The head is called by the model as ever, so that ZeRO-3 gathers its weights; a model that did
    arithmetic on its logits would stop at the tuple.
    """

    def forward(hidden_1KD: torch.Tensor) -> tuple[torch.Tensor]:
        return (head_loss_sum(hidden_1KD[0], head.weight, target_ids_K),)

    plain = head.forward
    head.forward = forward  # pyright: ignore[reportAttributeAccessIssue] - as torch allows
    try:
        yield
    finally:
        head.forward = plain


def head_loss_sum(
    hidden_KD: torch.Tensor,
    weight_VD: torch.Tensor,
    target_ids_K: torch.Tensor,
    chunk_values: int = CHUNK_VALUES,
) -> torch.Tensor:
    """Return the summed cross-entropy of a linear head in float32, with bounded memory.

    Args:
        hidden_KD: last hidden states.
        weight_VD: of the head.
        target_ids_K: what is to be predicted.
        chunk_values: most logits in memory at once.
    """
    rows = max(1, chunk_values // len(weight_VD))
    return _HeadLoss.apply(hidden_KD, weight_VD, target_ids_K, rows)  # pyright: ignore


class _HeadLoss(torch.autograd.Function):
    """Loss and gradients in one pass over the chunks, so that no logits wait for the backward."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        hidden_KD: torch.Tensor,
        weight_VD: torch.Tensor,
        target_ids_K: torch.Tensor,
        rows: int,
    ) -> torch.Tensor:
        wants_hidden, wants_weight, *_ = ctx.needs_input_grad
        loss = torch.zeros((), device=hidden_KD.device)
        hidden_grads: list[torch.Tensor] = []
        weight_grad: torch.Tensor | None = None
        for hidden, targets in zip(hidden_KD.split(rows), target_ids_K.split(rows), strict=True):
            logits = hidden @ weight_VD.T
            loss = loss + _turn_into_gradient(logits, targets)
            if wants_hidden:
                hidden_grads.append(logits @ weight_VD)
            if not wants_weight:
                continue
            if weight_grad is None:
                weight_grad = logits.T @ hidden
            else:
                weight_grad.addmm_(logits.T, hidden)
        ctx.grads = torch.cat(hidden_grads) if wants_hidden else None, weight_grad
        return loss

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        grads = [grad if grad is None else grad.mul_(scale) for grad in ctx.grads]
        del ctx.grads  # scaled in place: a second pass would be wrong, and fails
        return *grads, None, None


def _turn_into_gradient(logits_KV: torch.Tensor, target_ids_K: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy of logits, and leave its gradient in their place."""
    num_places, vocabulary = logits_KV.shape
    rows = num_places if logits_KV.is_cuda else max(1, _CACHED_VALUES // vocabulary)
    wide = torch.promote_types(logits_KV.dtype, torch.float32)
    loss = torch.zeros((), device=logits_KV.device)
    for logits, targets in zip(logits_KV.split(rows), target_ids_K.split(rows), strict=True):
        log_p = torch.log_softmax(logits, -1, dtype=wide)
        places = torch.arange(len(targets), device=targets.device)
        loss = loss - log_p[places, targets].sum()
        log_p.exp_()[places, targets] -= 1
        logits.copy_(log_p)
    return loss
