"""A run's settings as one tree, read from a TOML file and dotted overrides."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

from pydantic import BaseModel, ValidationError, model_validator

from cgd_ray.errors import UserError
from cgd_ray.settings.base import Section
from cgd_ray.settings.cluster import ClusterSettings
from cgd_ray.settings.examples import CurationSettings, ExampleSettings, PackingSettings
from cgd_ray.settings.prompts import PromptSettings
from cgd_ray.settings.run import LocalSettings, RunSettings
from cgd_ray.settings.sampling import SamplingSettings, StudentSettings
from cgd_ray.settings.serve import EvaluateSettings, ReportSettings, ServeSettings
from cgd_ray.settings.teacher import TeacherSettings
from cgd_ray.settings.train import TrainSettings


class Settings(Section):
    """Everything about one run."""

    run: RunSettings
    local: LocalSettings = LocalSettings()
    prompts: PromptSettings
    student: StudentSettings = StudentSettings()
    sampling: SamplingSettings = SamplingSettings()
    teacher: TeacherSettings = TeacherSettings()
    curation: CurationSettings = CurationSettings()
    examples: ExampleSettings = ExampleSettings()
    packing: PackingSettings = PackingSettings()
    train: TrainSettings = TrainSettings()
    serve: ServeSettings = ServeSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _a_critique_can_be_asked_for_again(self) -> Self:
        t = self.teacher
        if self.curation.leakage == "regenerate" and (t.turns, t.mode) != (2, "chat"):
            raise ValueError(
                f"curation.leakage=regenerate asks again before the refinement, and teacher.turns="
                f"{t.turns} with teacher.mode={t.mode} cannot: set teacher.turns=2 and "
                "teacher.mode=chat, or curation.leakage=drop"
            )
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.sampling.max_tokens >= self.student.max_model_len:
            raise ValueError(
                f"sampling.max_tokens={self.sampling.max_tokens} leaves no room for the prompt in "
                f"student.max_model_len={self.student.max_model_len}"
            )
        if self.evaluate.max_tokens >= self.student.max_model_len:
            raise ValueError(
                f"evaluate.max_tokens={self.evaluate.max_tokens} leaves no room for the prompt in "
                f"student.max_model_len={self.student.max_model_len}"
            )
        return self


def setting_paths(section: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Return every dotted setting path, in the order of the file."""
    paths: list[str] = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            paths += setting_paths(inner, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths


def load(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Read a run file and apply overrides such as `train.num_epochs=2`.

    Raises:
        UserError: the file cannot be read, or a setting is unknown or out of range.
    """
    try:
        data: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read run file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"run file {path} is not valid TOML: {error}") from error
    for override in overrides:
        _apply(data, override)
    return parse(data, str(path))


def parse(data: dict[str, Any], where: str) -> Settings:
    """Return settings from a plain dictionary.

    Raises:
        UserError: one line for each setting that is unknown or out of range.
    """
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        lines = [explain(dict(e), setting_paths()) for e in error.errors(include_url=False)]
        raise UserError(f"{where}: " + "; ".join(lines)) from error


def _apply(data: dict[str, Any], override: str) -> None:
    name, found, text = override.partition("=")
    parts = name.strip().split(".")
    if not found or not all(parts):
        raise UserError(f"override '{override}' is not of the form section.setting=value")
    for part in parts[:-1]:
        inner: object = data.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"override '{override}': '{part}' is a value, not a section")
        data = cast("dict[str, Any]", inner)
    data[parts[-1]] = _value(text)


def _value(text: str) -> object:
    """Read a value as TOML would; what TOML cannot read is text. `none` unsets."""
    if text.strip().lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def explain(error: dict[str, Any], known: Sequence[str]) -> str:
    """Return one line about one of pydantic's errors.

    Args:
        error: as `ValidationError.errors()` gives it.
        known: paths of all settings, for "did you mean".
    """
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path, known, n=1, cutoff=0.6)
        return f"unknown setting {path}" + (f"; did you mean {close[0]}?" if close else "")
    if error["type"] == "missing":
        return f"{path} is required and not set"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    value = error["input"]
    shown = f"={value!r}" if isinstance(value, str | int | float | bool) else ""
    return f"{path}{shown}: {error['msg'][:1].lower()}{error['msg'][1:]}"
