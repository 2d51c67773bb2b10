"""All settings: one TOML file and dotted overrides (`train.learning_rate=1e-5`), nothing else.

One class a stage. Defaults live here only. An unknown key is refused; the string under a field is
its documentation.
"""

from cgd_ray.settings.base import Section
from cgd_ray.settings.cluster import ClusterSettings
from cgd_ray.settings.examples import (
    OBJECTIVES,
    CurationSettings,
    ExampleSettings,
    Objective,
    PackingSettings,
)
from cgd_ray.settings.load import Settings, load, parse, setting_paths
from cgd_ray.settings.lora import LoraSettings
from cgd_ray.settings.prompts import ColumnSettings, PromptSettings
from cgd_ray.settings.run import LocalSettings, RunSettings
from cgd_ray.settings.sampling import EMBEDDED_STUDENT, SamplingSettings, StudentSettings
from cgd_ray.settings.serve import EvaluateSettings, ReportSettings, ServeSettings
from cgd_ray.settings.teacher import TeacherSettings
from cgd_ray.settings.train import TrainSettings

__all__ = [
    "EMBEDDED_STUDENT",
    "OBJECTIVES",
    "ClusterSettings",
    "ColumnSettings",
    "CurationSettings",
    "EvaluateSettings",
    "ExampleSettings",
    "LocalSettings",
    "LoraSettings",
    "Objective",
    "PackingSettings",
    "PromptSettings",
    "ReportSettings",
    "RunSettings",
    "SamplingSettings",
    "Section",
    "ServeSettings",
    "Settings",
    "StudentSettings",
    "TeacherSettings",
    "TrainSettings",
    "load",
    "parse",
    "setting_paths",
]
