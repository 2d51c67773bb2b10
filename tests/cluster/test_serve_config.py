"""The shipped Serve config: Ray accepts it, and it names things that exist."""

import importlib
from pathlib import Path

import yaml
from ray.serve.schema import ServeDeploySchema

from cgd_ray.settings import load

REPO = Path(__file__).resolve().parents[2]


def test_the_demo_config_is_what_serve_deploy_takes():
    config = yaml.safe_load((REPO / "serve" / "demo.yaml").read_text())
    schema = ServeDeploySchema.model_validate(config)
    application = schema.applications[0]
    module, _, name = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    settings = load(REPO / application.args["run"])
    assert schema.http_options.port == settings.serve.port
    assert schema.http_options.host == settings.serve.host
