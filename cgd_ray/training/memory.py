"""What one training worker holds in memory, from the model's shape and the settings.

States follow ZeRO (arXiv 1910.02054, section 3) as DeepSpeed lays them out; activations are counted
tensor by tensor over a decoder layer as transformers runs it with a flash attention kernel. Pure
arithmetic, so that a dry run can print it; `tests/cluster/test_memory_formula.py` holds it against
what the engine and autograd really keep.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cgd_ray.settings import TrainSettings

CHUNK_VALUES = 2**26  # logits at once, places x vocabulary: 0.4 GB in bfloat16 and float32
UPDATED_VALUES = 2**24  # that stage 0 updates at once: 64 MiB of float32 gradients, or one weight

_FLOAT32 = 4  # bytes
_REDUCE_BUCKET = 500_000_000  # values; DeepSpeed's `reduce_bucket_size`
_LIVE_PARAMETERS = 1_000_000_000  # that ZeRO-3 keeps gathered; `stage3_max_live_parameters`
_SUB_GROUP = 1_000_000_000  # values that ZeRO-3 updates at once; `sub_group_size`


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder with gated feed-forward layers, in the words of its configuration."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    vocabulary: int
    tied_embeddings: bool

    @property
    def num_parameters(self) -> int:
        """Weights in all; biases and norms inside attention, a thousandth at most, are left out."""
        queries, keys = self.num_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = self.hidden_size * (2 * queries + 2 * keys)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        tables = self.vocabulary * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.num_layers * layer + tables + self.hidden_size

    def num_adapter_parameters(self, rank: int) -> int:
        """Return the weights of LoRA adapters on all linear layers but the head."""
        queries, keys = self.num_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = 2 * (self.hidden_size + queries) + 2 * (self.hidden_size + keys)
        feed_forward = 3 * (self.hidden_size + self.intermediate_size)
        return self.num_layers * rank * (attention + feed_forward)


EMBEDDED_SHAPE = ModelShape(30, 576, 1536, 9, 3, 64, 49_152, tied_embeddings=True)  # SmolLM2-135M
# Students of our run files that are on a hub: the arithmetic needs no network.
HUB_SHAPES = {
    "meta-llama/Llama-3.2-1B-Instruct": ModelShape(
        16, 2048, 8192, 32, 8, 64, 128_256, tied_embeddings=True
    ),
    "meta-llama/Llama-3.1-8B-Instruct": ModelShape(
        32, 4096, 14_336, 32, 8, 128, 128_256, tied_embeddings=False
    ),
    "meta-llama/Llama-3.3-70B-Instruct": ModelShape(
        80, 8192, 28_672, 64, 8, 128, 128_256, tied_embeddings=False
    ),
}


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """What of the settings decides the memory of a worker."""

    zero_stage: int  # 0 to 3
    num_workers: int
    tokens_a_row: int  # T, `packing.sequence_length`
    target_share: float = 1.0  # of the row's tokens; 1: the most that it can be
    bytes_a_value: int = 2  # of weights and activations: bfloat16 2, float32 4
    gradient_checkpointing: bool = False
    num_trainable: int | None = None  # parameters with adapters; None: all
    offload_optimizer: bool = False  # to the host's memory
    offload_parameters: bool = False


def memory_settings(train: TrainSettings, shape: ModelShape, tokens_a_row: int) -> MemorySettings:
    """Return what decides the memory, with the fewest workers that training may have.

    Args:
        train: the settings.
        shape: of the student.
        tokens_a_row: `packing.sequence_length`.
    """
    return MemorySettings(
        zero_stage=train.zero_stage,
        num_workers=train.min_workers,
        tokens_a_row=tokens_a_row,
        bytes_a_value=2 if train.dtype == "bfloat16" else 4,
        gradient_checkpointing=train.gradient_checkpointing,
        num_trainable=shape.num_adapter_parameters(train.lora.rank) if train.lora.rank else None,
        offload_optimizer=train.offload_optimizer,
        offload_parameters=train.offload_parameters,
    )


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes in one worker, without what the allocator wastes."""

    weights: float
    gradients: float  # at the end of a backward pass
    optimizer: float  # float32 master weights and AdamW's two moments
    buckets: float  # of gradients on their way and, in ZeRO-3, of gathered weights
    activations: float
    logits: float  # one chunk of them, and the head's whole gradient
    update: float  # gradients while AdamW runs: as they are and in float32

    @property
    def states(self) -> float:
        """What stays from step to step."""
        return self.weights + self.optimizer

    @property
    def peak(self) -> float:
        """The fullest moment: in the backward pass, or in the update."""
        backward = self.gradients + self.buckets + self.activations + self.logits
        return self.states + max(backward, self.update)


def estimate_memory(shape: ModelShape, settings: MemorySettings) -> MemoryEstimate:
    """Return what one worker holds.

    Args:
        shape: of the student.
        settings: of the training.
    """
    s, parameters = settings, shape.num_parameters
    trained = parameters if s.num_trainable is None else s.num_trainable
    width, stage = s.bytes_a_value, s.zero_stage
    of_optimizer, of_gradients, of_weights = (
        s.num_workers if stage >= first else 1 for first in (1, 2, 3)
    )
    # Stage 0 trains float32 weights in place; all else has a float32 copy of what it updates.
    in_place = width == _FLOAT32 and stage == 0
    gradients = trained * width / of_gradients
    parts = {0: max(UPDATED_VALUES, shape.vocabulary * shape.hidden_size), 3: _SUB_GROUP}
    at_once = min(trained / of_optimizer, parts.get(stage, trained))
    copies = 0 if in_place else at_once * _FLOAT32
    on_device = 0 if s.offload_optimizer else 1
    return MemoryEstimate(
        weights=0 if s.offload_parameters else parameters * width / of_weights,
        gradients=gradients,
        optimizer=on_device * trained * _FLOAT32 * (2 if in_place else 3) / of_optimizer,
        buckets=_buckets(parameters, s),
        activations=activation_bytes(shape, s),
        logits=logit_bytes(shape, s),
        # Stages 1 and 2 give the gradients up for their float32 copies, 0 and 3 keep both.
        update=on_device * (copies + (gradients if stage in (0, 3) else 0)),
    )


def activation_bytes(shape: ModelShape, settings: MemorySettings) -> float:
    """Return what autograd keeps of a row, without the head."""
    width = settings.bytes_a_value
    layer = layer_bytes_a_token(shape, width)
    entry = shape.hidden_size * width  # all that is kept of a layer that is computed again
    last_norm = norm_bytes_a_token(shape, width) - entry  # the loss takes its output at once
    if settings.gradient_checkpointing:
        return settings.tokens_a_row * (shape.num_layers * entry + layer + last_norm)
    return settings.tokens_a_row * (shape.num_layers * layer + last_norm)


def layer_bytes_a_token(shape: ModelShape, bytes_a_value: int) -> float:
    """Return what one decoder layer keeps of a token for its backward pass."""
    width = bytes_a_value
    queries = shape.num_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    # Queries, keys, values, the output, and the kernel's log-sum-exp a head.
    attention = (2 * queries + 2 * keys) * width + shape.num_heads * _FLOAT32
    feed_forward = 4 * shape.intermediate_size * width  # gate, its activation, up, their product
    return 2 * norm_bytes_a_token(shape, width) + attention + feed_forward


def norm_bytes_a_token(shape: ModelShape, bytes_a_value: int) -> float:
    """Return what an RMS norm keeps: its input in float32, the normed one, and its output."""
    return shape.hidden_size * (_FLOAT32 + 2 * bytes_a_value)


def logit_bytes(shape: ModelShape, settings: MemorySettings) -> float:
    """Return what the loss holds: one chunk of logits, twice, and the head's whole gradient."""
    s = settings
    places = s.tokens_a_row * s.target_share
    values = min(places * shape.vocabulary, max(CHUNK_VALUES, shape.vocabulary))
    head = shape.vocabulary * shape.hidden_size * s.bytes_a_value
    adapters = s.num_trainable is not None
    return values * (s.bytes_a_value + _FLOAT32) + (0 if adapters else head)


def _buckets(parameters: int, s: MemorySettings) -> float:
    """Return the buffers of exchanges between workers."""
    reduce = _REDUCE_BUCKET if s.zero_stage >= 1 else 0
    gathered = min(parameters, _LIVE_PARAMETERS) if s.zero_stage == 3 else 0
    return (reduce + gathered) * s.bytes_a_value


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape that a Hugging Face `config.json` describes."""
    heads = config["num_attention_heads"]
    return ModelShape(
        num_layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
        tied_embeddings=config.get("tie_word_embeddings", False),
    )
