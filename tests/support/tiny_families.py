"""Each supported family as a model folder of a few thousand random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.support.tiny_llama import VOCABULARY
from tests.support.tiny_student import save_tokenizer

WINDOW = 7  # tokens; documents of the tests are longer

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,  # the smallest that vLLM's CPU attention takes
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SIZES),
    "qwen2": lambda: Qwen2Config(**{**_SIZES, "hidden_size": 128}),
    "qwen3": lambda: Qwen3Config(**_SIZES, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**_SIZES, sliding_window=WINDOW),
    "mixtral": lambda: MixtralConfig(
        **_SIZES, sliding_window=None, num_local_experts=4, num_experts_per_tok=2
    ),
    "olmo2": lambda: Olmo2Config(**{**_SIZES, "hidden_size": 128}),
    "gemma3": lambda: Gemma3TextConfig(
        **_SIZES,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        query_pre_attn_scalar=20,
    ),
}


def tiny_family(name: str, folder: Path) -> Path:
    """Save a family's model, in float32, and a tokenizer with a chat template; return the folder.

    Matrices are drawn wide enough that attention is far from uniform: a wrong mask, scale or norm
    then moves the logits by much more than rounding does.
    """
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(FAMILIES[name](), dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            spread = 0.1 if weight.ndim == 1 else 2.0 * weight.shape[-1] ** -0.5
            weight.add_(torch.randn_like(weight), alpha=spread)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder
