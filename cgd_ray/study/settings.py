"""A study's settings: which arms, seeds and budgets, on which run."""

import os
import tomllib
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from cgd_ray.errors import UserError
from cgd_ray.settings.base import Section
from cgd_ray.settings.load import explain

Match = Literal["examples", "steps", "train_tokens", "teacher_tokens", "usd"]
MATCHES: tuple[Match, ...] = get_args(Match)
Overrides = tuple[str, ...]


class ScaleSettings(Section):
    """What changes where the cluster has a GPU: the same study, larger."""

    overrides: Overrides = ()
    """Of the run, after the study's own."""
    seeds: tuple[int, ...] | None = None
    """Instead of the study's; None: the same."""


class StudySettings(Section):
    """Everything about one study."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """In titles and file names."""
    run: str
    """The run file that all arms start from, relative to the study's."""
    overrides: Overrides = ()
    """Of that run, for all arms: `section.setting=value`."""
    arms: tuple[str, ...] = Field(min_length=2)
    """`base` and names of trained arms: see docs/studies.md, or `[own_arms]`."""
    reference: str = "cgd"
    """The arm whose budget the others are given and that they are compared with."""
    seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1)
    """Of the order of the examples: one training of each arm a seed."""
    match: tuple[Match, ...] = Field(default=("examples",), min_length=1)
    """What all arms spend the same of: a table each."""
    cells_at_once: int = Field(default=1, ge=1)
    """Trainings under way at once, on the same cluster."""
    own_arms: dict[str, Overrides] = Field(default_factory=dict)
    """Arms of your own: a name and the overrides that make it."""
    scale: ScaleSettings = ScaleSettings()
    """What changes where the cluster has a GPU."""


def load_study(path: Path) -> tuple[StudySettings, Path]:
    """Return a study's settings and the path of its run file.

    Raises:
        UserError: the file cannot be read, or a setting is unknown or out of range.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        study = StudySettings.model_validate(data)
    except OSError as error:
        raise UserError(f"cannot read study file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"study file {path} is not valid TOML: {error}") from error
    except ValidationError as error:
        known = list(StudySettings.model_fields)
        lines = [explain(dict(e), known) for e in error.errors(include_url=False)]
        raise UserError(f"{path}: " + "; ".join(lines)) from error
    for name in ("seeds", "match"):
        values = getattr(study, name)
        if len(set(values)) < len(values):
            raise UserError(f"{path}: {name} names something twice: {values}")
    return study, Path(os.path.normpath(path.parent / study.run))
