"""The application: models side by side behind one guarded, OpenAI-compatible address.

Nothing of a critique is here: a request's messages go to the engine as they come.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.llm._internal.serve.core.configs.openai_api_models import to_model_metadata
from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.ingress import OpenAiIngress

from cgd_ray.pipeline.context import open_context
from cgd_ray.pipeline.models import last_fetched, trained_model
from cgd_ray.runtime import place, use_gpu
from cgd_ray.sampling.engine import engine_bundle, engine_environment
from cgd_ray.serving.bounds import ROUTES, Limits
from cgd_ray.serving.engine import GPU_GIB, Hardware, choose_engine, model_facts
from cgd_ray.serving.exposure import require_guard
from cgd_ray.serving.gateway import Policy
from cgd_ray.serving.ingress import ADAPTERS, MODEL, ON_GPU, EngineServer, ingress_class
from cgd_ray.serving.models import ServedModel, served_models
from cgd_ray.serving.playground import playground_pages
from cgd_ray.settings import Settings, load
from cgd_ray.student import student_source


def build(args: dict[str, Any]) -> Application:
    """Build the application from a Serve config file; `args.run` names the run's TOML file.

    Raises:
        UserError: the run has no trained student yet, or others could ask it without a key.
    """
    settings = load(args["run"], args.get("overrides", ()))
    require_guard(settings.serve)
    work_dir = Path(settings.run.work_dir)

    def student() -> Path:
        # Fetched before, it needs no store: the demo's own is not running now.
        fetched = last_fetched(work_dir, settings.run.name)
        return fetched or trained_model(open_context(settings))

    models = served_models(
        settings.serve.models, lambda: student_source(settings.student.model, work_dir), student
    )
    return build_application(settings, models)


def build_application(
    settings: Settings, models: list[ServedModel], tell: Callable[[str], None] = print
) -> Application:
    """Return the Serve application for these models.

    Args:
        settings: of the run.
        models: what is served.
        tell: takes a line for each choice that is made for an engine.
    """
    hardware = _hardware(settings)
    configs = {model.id: _llm_config(settings, model, hardware, tell) for model in models}
    ingress = ingress_class(make_policy(settings, models), settings.serve.cors_origins)
    options = OpenAiIngress.get_deployment_options(list(configs.values()))
    options["graceful_shutdown_timeout_s"] = settings.serve.drain_s
    where = place("server")
    engine_options: dict[str, Any] = {}
    if where is not None:
        own: dict[str, Any] = options.get("ray_actor_options") or {}
        options["ray_actor_options"] = {**own, "label_selector": where}
        engine_options = {
            "placement_group_bundle_label_selector": [where],
            "placement_group_strategy": "STRICT_PACK",  # an engine's processes share one machine
        }
    engines = {
        name: build_llm_deployment(config, override_serve_options=engine_options)
        for name, config in configs.items()
    }
    names = [(name, model.id) for model in models for name in model.ids]
    return serve.deployment(ingress, **options).bind(
        llm_deployments={name: engines[engine] for name, engine in names},
        model_cards={name: to_model_metadata(name, configs[engine]) for name, engine in names},
    )


def make_policy(settings: Settings, models: list[ServedModel]) -> Policy:
    """Return what the gateway enforces in front of these models."""
    s = settings.serve
    limits = Limits(
        max_body_bytes=s.max_body_bytes,
        max_tokens=s.max_tokens or settings.student.max_model_len,
        max_choices=s.max_choices,
        structured_outputs=s.structured_outputs,
        models=frozenset(name for model in models for name in model.ids),
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


def _hardware(settings: Settings) -> Hardware:
    on_gpu = use_gpu(settings.serve.accelerator)
    kinds = [name.partition(":")[2] for name in ray.cluster_resources() if "accelerator" in name]
    sizes = [GPU_GIB.get(kind) for kind in kinds]
    known = [size for size in sizes if size is not None]
    # On a mixed cluster an engine may land on the smallest.
    return Hardware(on_gpu, min(known) if known and len(known) == len(sizes) else None)


def _llm_config(
    settings: Settings, model: ServedModel, hardware: Hardware, tell: Callable[[str], None]
) -> LLMConfig:
    s = settings.serve
    choice = choose_engine(model, model_facts(model.source), hardware, settings)
    for line in choice.lines:
        tell(line)
    parallel = {"tensor_parallel_size": choice.kwargs["tensor_parallel_size"]}
    return LLMConfig(
        model_loading_config={"model_id": model.id, "model_source": model.source},
        server_cls=EngineServer,
        deployment_config={
            "autoscaling_config": {
                "min_replicas": s.min_replicas,
                "max_replicas": s.max_replicas,
                "target_ongoing_requests": s.target_requests,
            },
            "graceful_shutdown_timeout_s": s.drain_s,
        },
        engine_kwargs=choice.kwargs,
        experimental_configs={
            ADAPTERS: [(one.id, one.source) for one in model.adapters],
            ON_GPU: hardware.on_gpu,
            MODEL: (model.source, settings.run.root),
        },
        placement_group_config=engine_bundle(
            settings.sampling.model_copy(update=parallel), on_gpu=hardware.on_gpu
        ),
        runtime_env={"env_vars": engine_environment(s.kv_cache_gib, on_gpu=hardware.on_gpu)},
        log_engine_metrics=hardware.on_gpu,
    )
