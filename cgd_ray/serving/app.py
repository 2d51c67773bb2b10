"""The application: base and student as two model ids behind one OpenAI-compatible address.

Nothing of a critique is here: a request's messages go to the engine as they come.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.serve import Application
from ray.serve.llm import LLMConfig, build_openai_app

from cgd_ray.pipeline.context import open_context
from cgd_ray.pipeline.models import last_fetched, trained_model
from cgd_ray.runtime import use_gpu
from cgd_ray.sampling.engine import engine_bundle, engine_environment, engine_kwargs
from cgd_ray.serving.models import BASE, STUDENT
from cgd_ray.settings import ServeSettings, Settings, load
from cgd_ray.student import student_source


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model id and where its weights are."""

    id: str
    source: str


def served_models(settings: Settings, student: Path) -> list[ServedModel]:
    """Return the untrained base and the trained student of a run."""
    base = student_source(settings.student.model, Path(settings.run.work_dir))
    return [ServedModel(BASE, base), ServedModel(STUDENT, str(student))]


def build(args: dict[str, Any]) -> Application:
    """Build the application from a Serve config file; `args.run` names the run's TOML file.

    Raises:
        UserError: the run has no trained student yet.
    """
    settings = load(args["run"], args.get("overrides", ()))
    # Fetched before, it needs no store: the demo's own is not running now.
    student = last_fetched(Path(settings.run.work_dir), settings.run.name)
    student = student or trained_model(open_context(settings))
    return build_application(settings, served_models(settings, student))


def build_application(settings: Settings, models: list[ServedModel]) -> Application:
    """Return the Serve application for these models."""
    serve = settings.serve
    on_gpu = use_gpu(serve.accelerator)
    return build_openai_app(
        {"llm_configs": [_llm_config(settings, model, on_gpu=on_gpu) for model in models]}
    )


def _llm_config(settings: Settings, model: ServedModel, *, on_gpu: bool) -> LLMConfig:
    serve: ServeSettings = settings.serve
    engine = engine_kwargs(settings.sampling, settings.student, on_gpu=on_gpu)
    return LLMConfig(
        model_loading_config={"model_id": model.id, "model_source": model.source},
        deployment_config={
            "autoscaling_config": {
                "min_replicas": serve.min_replicas,
                "max_replicas": serve.max_replicas,
            },
        },
        engine_kwargs=engine,
        placement_group_config=engine_bundle(settings.sampling, on_gpu=on_gpu),
        runtime_env={"env_vars": engine_environment(serve.kv_cache_gib, on_gpu=on_gpu)},
        log_engine_metrics=False,
    )
