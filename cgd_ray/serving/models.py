"""What is served: model ids and where their weights are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cgd_ray.errors import UserError

BASE = "base"  # the untrained student
STUDENT = "student"  # the trained one


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model id and where its weights are."""

    id: str
    source: str  # folder or Hugging Face id


def served_models(
    wanted: dict[str, str], base: Callable[[], str], student: Callable[[], Path]
) -> list[ServedModel]:
    """Return the models of `serve.models`.

    Args:
        wanted: id -> folder, Hugging Face id, or `base` or `student` for the run's own.
        base: finds the untrained student.
        student: finds the trained one; not called where it is not wanted.

    Raises:
        UserError: a folder holds no safetensors weights, or the run has no trained student.
    """
    models: list[ServedModel] = []
    for name, source in wanted.items():
        if source == BASE:
            found = base()
        elif source == STUDENT:
            found = str(student())
        else:
            found = _folder(name, source)
        models.append(ServedModel(name, found))
    return models


def _folder(name: str, source: str) -> str:
    """Return the absolute path of a model folder; what is no folder is a Hugging Face id."""
    folder = Path(source).expanduser()
    looks_local = source.startswith(("/", "./", "../", "~"))
    if not folder.is_dir():
        if looks_local:
            raise UserError(f"serve.models.{name}={source}: there is no such folder")
        return source
    if not (folder / "config.json").is_file():
        raise UserError(f"serve.models.{name}={source} is no model folder: no config.json in it")
    # Other formats are pickles: loading one runs what its author wrote.
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"serve.models.{name}={source} holds no *.safetensors weights")
    return str(folder.resolve())
