"""The application: models side by side behind one guarded, OpenAI-compatible address.

Nothing of a critique is here: a request's messages go to the engine as they come.
"""

from pathlib import Path
from typing import Any

from ray import serve
from ray.llm._internal.serve.core.configs.openai_api_models import to_model_metadata
from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.ingress import OpenAiIngress

from cgd_ray.pipeline.context import open_context
from cgd_ray.pipeline.models import last_fetched, trained_model
from cgd_ray.runtime import use_gpu
from cgd_ray.sampling.engine import engine_bundle, engine_environment, engine_kwargs
from cgd_ray.serving.bounds import ROUTES, Limits
from cgd_ray.serving.gateway import Policy
from cgd_ray.serving.ingress import ingress_class
from cgd_ray.serving.models import ServedModel, served_models
from cgd_ray.serving.playground import playground_pages
from cgd_ray.settings import Settings, load
from cgd_ray.student import student_source


def build(args: dict[str, Any]) -> Application:
    """Build the application from a Serve config file; `args.run` names the run's TOML file.

    Raises:
        UserError: the run has no trained student yet.
    """
    settings = load(args["run"], args.get("overrides", ()))
    work_dir = Path(settings.run.work_dir)

    def student() -> Path:
        # Fetched before, it needs no store: the demo's own is not running now.
        fetched = last_fetched(work_dir, settings.run.name)
        return fetched or trained_model(open_context(settings))

    models = served_models(
        settings.serve.models, lambda: student_source(settings.student.model, work_dir), student
    )
    return build_application(settings, models)


def build_application(settings: Settings, models: list[ServedModel]) -> Application:
    """Return the Serve application for these models."""
    on_gpu = use_gpu(settings.serve.accelerator)
    configs = [_llm_config(settings, model, on_gpu=on_gpu) for model in models]
    ingress = ingress_class(make_policy(settings), settings.serve.cors_origins)
    options = OpenAiIngress.get_deployment_options(configs)
    options["graceful_shutdown_timeout_s"] = settings.serve.drain_s
    return serve.deployment(ingress, **options).bind(
        llm_deployments={config.model_id: build_llm_deployment(config) for config in configs},
        model_cards={c.model_id: to_model_metadata(c.model_id, c) for c in configs},
    )


def make_policy(settings: Settings) -> Policy:
    """Return what the gateway enforces under these settings."""
    s = settings.serve
    limits = Limits(
        max_body_bytes=s.max_body_bytes,
        max_tokens=s.max_tokens or settings.student.max_model_len,
        max_choices=s.max_choices,
        structured_outputs=s.structured_outputs,
    )
    pages = playground_pages() if s.playground else {}
    return Policy(
        limits=limits,
        routes={**ROUTES, **dict.fromkeys(pages, "GET")},
        pages=pages,
        max_in_flight=s.max_in_flight,
        retry_after_s=s.retry_after_s,
        request_timeout_s=s.request_timeout_s,
        body_timeout_s=s.body_timeout_s,
        api_keys_file=None if s.api_keys_file is None else str(Path(s.api_keys_file).absolute()),
        api_keys_env=s.api_keys_env,
    )


def _llm_config(settings: Settings, model: ServedModel, *, on_gpu: bool) -> LLMConfig:
    s = settings.serve
    engine = engine_kwargs(settings.sampling, settings.student, on_gpu=on_gpu)
    return LLMConfig(
        model_loading_config={"model_id": model.id, "model_source": model.source},
        deployment_config={
            "autoscaling_config": {
                "min_replicas": s.min_replicas,
                "max_replicas": s.max_replicas,
                "target_ongoing_requests": s.target_requests,
            },
            "graceful_shutdown_timeout_s": s.drain_s,
        },
        engine_kwargs={**engine, "load_format": "safetensors"},
        placement_group_config=engine_bundle(settings.sampling, on_gpu=on_gpu),
        runtime_env={"env_vars": engine_environment(s.kv_cache_gib, on_gpu=on_gpu)},
        log_engine_metrics=on_gpu,
    )
