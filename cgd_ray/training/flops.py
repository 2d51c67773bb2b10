"""How much of a device's arithmetic training uses: model FLOPs utilisation (MFU).

PaLM, appendix B (arXiv 2204.02311): a token costs 2 FLOPs a weight forward and 4 backward, and
attention 12 a layer for each token of its sequence and each element of its width. Causal masking is
not subtracted, recomputed activations are not added. Two things differ here: a token's sequence is
its own document, and the language-model head works at the target tokens alone.
"""

from dataclasses import dataclass
from typing import Any

import torch

# Dense bfloat16 FLOP/s without sparsity, from the vendors' data sheets; the first match counts.
_PEAK_FLOPS = (
    ("B200", 2.25e15),
    ("H200", 989e12),
    ("H20", 148e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("GH200", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10G", 70e12),
    ("MI300X", 1307e12),
)


@dataclass(frozen=True, slots=True)
class ComputeShape:
    """What a model's FLOPs follow from."""

    num_body: int  # weights that every token is multiplied with: no embedding, no head
    num_head: int  # weights of the language-model head
    num_layers: int
    attention_width: int  # query heads x head size
    trained_share: float = 1.0  # of the weights: those that are frozen need no gradient


def training_flops(shape: ComputeShape, num_tokens: int, num_targets: int, num_pairs: int) -> float:
    """Return the FLOPs of forward and backward.

    Args:
        shape: of the model.
        num_tokens: context and targets.
        num_targets: tokens that carry loss.
        num_pairs: the documents' squared lengths, added up.
    """
    weights = shape.num_body * num_tokens + shape.num_head * num_targets
    attention = 12 * shape.num_layers * shape.attention_width * num_pairs
    return (4 + 2 * shape.trained_share) * weights + attention


def peak_flops(device_name: str, dtype: str) -> float | None:
    """Return the bfloat16 FLOP/s that a GPU can reach; None: not known, or another type."""
    if dtype != "bfloat16":
        return None
    return next((flops for name, flops in _PEAK_FLOPS if name in device_name), None)


def compute_shape(model: Any) -> ComputeShape:  # noqa: ANN401 - any Hugging Face model, wrapped or not
    """Return the shape of a loaded causal language model; of experts, those that a token meets."""
    config = model.config.get_text_config()
    head = _size(model.get_output_embeddings().weight)
    embeddings = {
        id(e.weight) for e in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    met = config.num_experts_per_tok / experts if experts else 1.0
    body = 0.0
    for name, weight in model.named_parameters():
        if id(weight) not in embeddings:
            body += _size(weight) * (met if ".experts." in name else 1.0)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    sizes = [(_size(p), p.requires_grad) for p in model.parameters()]
    share = sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes)
    return ComputeShape(round(body), head, config.num_hidden_layers, width, share)


def _size(weight: torch.Tensor) -> int:
    """Return the elements of a weight, also of one that ZeRO-3 has sharded."""
    return getattr(weight, "ds_numel", weight.numel())
