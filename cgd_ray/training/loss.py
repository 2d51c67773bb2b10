"""The only loss: -log p(target | context), at target tokens alone (paper, section 3)."""

import torch
from torch.nn.functional import cross_entropy

from cgd_ray.training.batch import BatchTensors


def target_loss_sum(model: torch.nn.Module, batch: BatchTensors) -> torch.Tensor:
    """Return the cross-entropy summed over a packed batch's target tokens, in nats.

    The language-model head runs at the K places that predict a target and nowhere else: in CGD
    most tokens are context, and the logits are the largest tensor of the step.
    """
    logits_1KV = model(
        input_ids=batch.input_ids_1T,
        position_ids=batch.position_ids_1T,
        logits_to_keep=batch.predict_at_K,
        document_lengths=batch.document_lengths,
        use_cache=False,
    ).logits
    return cross_entropy(logits_1KV[0].float(), batch.target_ids_K, reduction="sum")
