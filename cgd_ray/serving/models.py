"""What is served: model ids, where their weights are, and which engine holds them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cgd_ray.errors import UserError

BASE = "base"  # the untrained student
STUDENT = "student"  # the trained one
_ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA student: a model id of its own on the engine of its base model."""

    id: str
    source: str  # folder in PEFT's layout
    rank: int


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model id with an engine of its own."""

    id: str
    source: str  # folder or Hugging Face id
    adapters: tuple[Adapter, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Every model id that the engine answers to."""
        return (self.id, *(adapter.id for adapter in self.adapters))


def served_models(
    wanted: Mapping[str, str], base: Callable[[], str], student: Callable[[], Path]
) -> list[ServedModel]:
    """Return the models of `serve.models`, each LoRA student on the engine of its base.

    Args:
        wanted: id -> folder, Hugging Face id, or `base` or `student` for the run's own.
        base: finds the untrained student.
        student: finds the trained one; not called where it is not wanted.

    Raises:
        UserError: a folder holds no safetensors weights, a LoRA student's base is not served, or
            the run has no trained student.
    """
    engines: dict[str, ServedModel] = {}
    adapters: list[tuple[Adapter, str]] = []
    for name, source in wanted.items():
        if source == BASE:
            found = base()
        elif source == STUDENT:
            found = str(student())
        else:
            found = _weights(name, source)
        config = Path(found) / _ADAPTER_CONFIG
        if config.is_file():
            adapters.append(_adapter(name, found, json.loads(config.read_text(encoding="utf-8"))))
        else:
            engines[name] = ServedModel(name, found)
    for adapter, base_source in adapters:
        name = _engine_of(adapter, base_source, wanted, engines)
        engine = engines[name]
        engines[name] = replace(engine, adapters=(*engine.adapters, adapter))
    return list(engines.values())


def _engine_of(
    adapter: Adapter,
    base_source: str,
    wanted: Mapping[str, str],
    engines: Mapping[str, ServedModel],
) -> str:
    """Return the id whose engine holds an adapter's base: by source, else the run's own base."""
    for name, engine in engines.items():
        if base_source in (engine.source, wanted[name]):
            return name
    own = [name for name in engines if wanted[name] == BASE]
    if own:
        return own[0]
    raise UserError(
        f"serve.models.{adapter.id} is a LoRA adapter of {base_source}, which is not served: add "
        f'serve.models.base="{base_source}"'
    )


def _adapter(name: str, folder: str, config: Mapping[str, Any]) -> tuple[Adapter, str]:
    """Return an adapter and the model that its config says it was trained on."""
    return Adapter(name, folder, int(config["r"])), str(config.get("base_model_name_or_path"))


def _weights(name: str, source: str) -> str:
    """Return the absolute path of a model folder; what is no folder is a Hugging Face id."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if source.startswith(("/", "./", "../", "~")):
            raise UserError(f"serve.models.{name}={source}: there is no such folder")
        return source
    if not any((folder / config).is_file() for config in ("config.json", _ADAPTER_CONFIG)):
        raise UserError(f"serve.models.{name}={source} is no model folder: no config.json in it")
    # Other formats are pickles: loading one runs what its author wrote.
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"serve.models.{name}={source} holds no *.safetensors weights")
    return str(folder.resolve())
