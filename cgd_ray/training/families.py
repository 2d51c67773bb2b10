"""Which students can be trained, and on which examples, told before any worker starts."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from cgd_ray.errors import UserError
from cgd_ray.settings import LoraSettings
from cgd_ray.student import model_config, tokenizer_hash

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
    config = model_config(source)
    problem = _wrong_config(config, sequence_length) or _wrong_class(config)
    if problem:
        raise UserError(f"student.model={source} {problem}: choose a student of another family")
    if lora.rank and lora.targets:
        _check_targets(_skeleton(config), lora)


def check_tokenizer(source: str, examples: str, made_with: str | None) -> None:
    """Refuse examples whose tokens mean something else to this student.

    Args:
        source: a model folder or a Hugging Face id.
        examples: where the examples are.
        made_with: `tokenizer_hash` of the student that they were made for; None: not recorded.

    Raises:
        UserError: vocabulary or chat template have changed since.
    """
    found = tokenizer_hash(source)
    if made_with not in (None, found):
        raise UserError(
            f"student.model={source}: its tokenizer or chat template ({found}) is not the one that "
            f"the examples were made with ({made_with}): put that one back, or remove {examples} "
            "and make them again"
        )


def _wrong_config(config: Any, sequence_length: int) -> str | None:  # noqa: ANN401
    """Return what in a configuration document attention does not compute."""
    if config.get_text_config() is not config:
        return "takes more than text, and only models of text are trained"
    others = set(getattr(config, "layer_types", None) or ()) - _LAYERS
    if others:
        return f"has layers that would mix the documents of a packed batch ({min(others)})"
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
    kind: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if kind is None:
        return f"is of a kind without a causal language model ({config.model_type})"
    if kind._is_stateful:
        return f"would mix the documents of a packed batch ({config.model_type})"
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
