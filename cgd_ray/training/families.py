"""Which students can be trained, told from the configuration before any worker starts."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from cgd_ray.errors import UserError
from cgd_ray.settings import LoraSettings

_LAYERS = frozenset({"full_attention", "sliding_attention"})
_STRETCHED = frozenset({"dynamic", "longrope"})  # frequencies follow from the longest document


def check_student(source: str, sequence_length: int, lora: LoraSettings) -> None:
    """Refuse a student that training would treat wrongly. Loads no weights.

    Args:
        source: a model folder or a Hugging Face id.
        sequence_length: most tokens of a packed batch.
        lora: adapters, if any.

    Raises:
        UserError: the model cannot be read, its attention is not what document attention computes,
            or it has no layer that the adapters are for.
    """
    config = _config(source)
    problem = _wrong_config(config, sequence_length) or _wrong_class(config)
    if problem:
        raise UserError(f"student.model={source} {problem}: choose a student of another family")
    if lora.rank:
        _check_targets(_skeleton(config), lora)


def _config(source: str) -> Any:  # noqa: ANN401 - one class a family
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise UserError(
            f"student.model={source}: its configuration cannot be read: {first}"
        ) from error


def _wrong_config(config: Any, sequence_length: int) -> str | None:  # noqa: ANN401
    """Return what in a configuration document attention does not compute."""
    if config.get_text_config() is not config:
        return "takes more than text, and only models of text are trained"
    others = set(getattr(config, "layer_types", None) or ()) - _LAYERS
    if others:
        return f"has layers that carry state from one document to the next ({min(others)})"
    if getattr(config, "attn_logit_softcapping", None):
        return "caps its attention scores, which document attention does not"
    if getattr(config, "use_bidirectional_attention", None):
        return "lets tokens see later ones, which document attention does not"
    rope = getattr(config, "rope_parameters", None) or {}
    trained = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    if rope.get("rope_type") in _STRETCHED and sequence_length > trained:
        return (
            f"stretches positions beyond {trained} tokens by the longest document of a packed "
            f"batch (packing.sequence_length={sequence_length})"
        )
    return None


def _wrong_class(config: Any) -> str | None:  # noqa: ANN401
    """Return why a model class would not call document attention in every layer."""
    kind = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if kind is None:
        return f"is of a kind without a causal language model ({config.model_type})"
    if kind._is_stateful:
        return f"carries state from one document to the next ({config.model_type})"
    if not kind._supports_attention_backend:
        return f"does not take other attention than its own ({config.model_type})"
    return None


def _skeleton(config: Any) -> PreTrainedModel:  # noqa: ANN401
    """Return the model without its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _check_targets(model: PreTrainedModel, lora: LoraSettings) -> None:
    head = model.get_output_embeddings()
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    for target in lora.targets:
        if target not in names:
            raise UserError(
                f"train.lora.targets: no linear layer of the student is called {target}; it has "
                f"{', '.join(sorted(names))}"
            )
