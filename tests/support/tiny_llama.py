"""A real Llama of a few thousand weights that are the same on every machine and version."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cgd_ray.training.attention import DOCUMENT_ATTENTION, register

VOCABULARY = 128


def tiny_llama(attention: str = DOCUMENT_ATTENTION) -> LlamaForCausalLM:
    """Return the model in float32, its weights drawn by NumPy, whose generator never changes."""
    register()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        attn_implementation=attention,
    )
    model = LlamaForCausalLM(config)
    draw = np.random.default_rng(7)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            values = draw.normal(0.0, 0.2, tuple(weight.shape))
            shift = 1.0 if "norm" in name else 0.0
            weight.copy_(torch.from_numpy(values * (0.1 if shift else 1.0) + shift))
    return model.float()
