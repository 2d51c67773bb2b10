"""Low-rank adapters: put into the student before training, merged into its weights after."""

from collections.abc import Mapping

import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import PreTrainedModel

from cgd_ray.settings import LoraSettings

_A, _B, _BASE = "lora_A.default.weight", "lora_B.default.weight", "base_layer."


def add_adapters(model: PreTrainedModel, lora: LoraSettings, seed: int) -> None:
    """Give linear layers their adapters, in place, and freeze everything else.

    The model stays of its own class: its forward and its loss do not change. Every worker draws the
    same A; B is zero, so that the first step starts from the student as it is.
    """
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
    )
    inject_adapter_in_model(config, model)


def merged(weights: Mapping[str, torch.Tensor], lora: LoraSettings) -> dict[str, torch.Tensor]:
    """Return the weights of the plain model, W + (alpha / rank) B A where there are adapters.

    Args:
        weights: of the model with adapters, whole, by name.
        lora: the adapters' settings.
    """
    plain: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if name.endswith((_A, _B)):
            continue
        stem, found, _ = name.rpartition(_BASE + "weight")
        if found:
            update = weights[stem + _B].float() @ weights[stem + _A].float()
            weight = (weight.float() + lora.alpha / lora.rank * update).to(weight.dtype)
        plain[name.replace(_BASE, "")] = weight
    return plain
