"""How a served engine is set up for its model and its hardware: pure, and said in words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgd_ray.sampling.engine import engine_kwargs
from cgd_ray.serving.models import Adapter, ServedModel
from cgd_ray.settings import Settings

_GIB = 2**30
_WEIGHTS_SHARE = 0.7  # of a GPU's memory; the rest is for activations and the key-value cache
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for
# Memory of the GPUs that Ray knows by these names, in GiB.
GPU_GIB = {
    "T4": 15,
    "A10G": 22,
    "L4": 22,
    "L40S": 44,
    "V100": 16,
    "A100": 39,
    "A100-40G": 39,
    "A100-80G": 79,
    "H100": 79,
    "H200": 139,
    "B200": 178,
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model folder says of itself."""

    num_weight_bytes: int
    context: int | None  # tokens
    num_cache_bytes_per_token: int | None  # keys and values of all layers, two bytes a number


@dataclass(frozen=True, slots=True)
class Hardware:
    """What one engine may run on."""

    on_gpu: bool
    gpu_gib: int | None  # memory of one GPU; None: not known


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """vLLM's arguments, and why they are what they are."""

    kwargs: dict[str, Any]
    lines: tuple[str, ...]


def model_facts(source: str) -> ModelFacts | None:
    """Return the facts of a model folder; None for a Hugging Face id, which is not here yet."""
    folder = Path(source)
    if not (folder / "config.json").is_file():
        return None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return ModelFacts(num_bytes, config.get("max_position_embeddings"), _cache_bytes(config))


def choose_engine(
    model: ServedModel, facts: ModelFacts | None, hardware: Hardware, settings: Settings
) -> EngineChoice:
    """Return the engine's arguments and a line for each choice."""
    lines: list[str] = []
    length = _length(facts, settings, lines)
    num_gpus = _num_gpus(facts, hardware, settings, lines)
    student = settings.student.model_copy(update={"max_model_len": length})
    sampling = settings.sampling.model_copy(update={"tensor_parallel_size": num_gpus})
    kwargs = engine_kwargs(sampling, student, on_gpu=hardware.on_gpu)
    kwargs["load_format"] = "safetensors"
    _say_cache(facts, length, hardware, settings, lines)
    lines.append(f"at most {sampling.max_num_seqs} answers at once (sampling.max_num_seqs)")
    if model.adapters:
        kwargs |= _lora_kwargs(model.adapters)
        names = ", ".join(adapter.id for adapter in model.adapters)
        lines.append(f"LoRA students on the same engine: {names}")
    return EngineChoice(kwargs, tuple(f"{model.id}: {line}" for line in lines))


def _length(facts: ModelFacts | None, settings: Settings, lines: list[str]) -> int:
    wanted = settings.student.max_model_len
    if facts and facts.context and facts.context < wanted:
        lines.append(f"prompt + answer up to {facts.context} tokens, all that the model can")
        return facts.context
    lines.append(f"prompt + answer up to {wanted} tokens (student.max_model_len)")
    return wanted


def _num_gpus(
    facts: ModelFacts | None, hardware: Hardware, settings: Settings, lines: list[str]
) -> int:
    """Return the setting, else the fewest GPUs, in powers of two, that hold the weights."""
    chosen = settings.serve.tensor_parallel_size
    if not hardware.on_gpu:
        lines.append("CPU engine, bfloat16")
        return 1
    if chosen:
        lines.append(f"{chosen} GPUs (serve.tensor_parallel_size), bfloat16")
        return chosen
    if facts is None or hardware.gpu_gib is None:
        chosen = settings.sampling.tensor_parallel_size
        lines.append(f"{chosen} GPUs (sampling.tensor_parallel_size), bfloat16")
        return chosen
    chosen = 1
    while facts.num_weight_bytes > chosen * hardware.gpu_gib * _GIB * _WEIGHTS_SHARE:
        chosen *= 2
    weights = facts.num_weight_bytes / _GIB
    lines.append(
        f"{chosen} GPUs of {hardware.gpu_gib} GiB for {weights:.1f} GiB of weights, bfloat16"
    )
    return chosen


def _say_cache(
    facts: ModelFacts | None,
    length: int,
    hardware: Hardware,
    settings: Settings,
    lines: list[str],
) -> None:
    if hardware.on_gpu or facts is None or not facts.num_cache_bytes_per_token:
        return
    gib = settings.serve.kv_cache_gib
    num_tokens = gib * _GIB // facts.num_cache_bytes_per_token
    lines.append(
        f"{gib} GiB of key-value cache (serve.kv_cache_gib) hold {num_tokens:,} tokens: "
        f"{num_tokens / length:.1f} requests of full length"
    )


def _cache_bytes(config: Mapping[str, Any]) -> int | None:
    """Return the bytes that one token's keys and values take; None where the config differs."""
    heads = config.get("num_attention_heads")
    layers, width = config.get("num_hidden_layers"), config.get("hidden_size")
    if not (heads and layers and width):
        return None
    head = config.get("head_dim") or width // heads
    return 2 * 2 * layers * (config.get("num_key_value_heads") or heads) * head


def _lora_kwargs(adapters: tuple[Adapter, ...]) -> dict[str, Any]:
    widest = max(adapter.rank for adapter in adapters)
    rank = next((rank for rank in _LORA_RANKS if rank >= widest), widest)
    return {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": rank}
