"""The shipped Serve configs: Ray accepts them, they name things that exist, and none is open."""

import importlib
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from cgd_ray.errors import UserError
from cgd_ray.serving.app import build
from cgd_ray.serving.exposure import is_loopback
from cgd_ray.settings import load

REPO = Path(__file__).resolve().parents[2]
CONFIGS = sorted((REPO / "serve").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_what_serve_deploy_takes(path: Path):
    schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    application = schema.applications[0]
    module, _, name = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    settings = load(REPO / application.args["run"], application.args.get("overrides", ())).serve
    assert schema.http_options.port == settings.port
    assert schema.http_options.host == settings.host
    assert is_loopback(settings.host) or settings.api_keys_file
    limit_s = schema.http_options.request_timeout_s
    assert limit_s is None or limit_s >= settings.body_timeout_s + settings.request_timeout_s


def test_an_open_application_without_keys_is_not_built(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CGD_API_KEYS", raising=False)
    run = str(REPO / "jobs/runs/demo.toml")
    with pytest.raises(UserError, match="there is no API key"):
        build({"run": run, "overrides": ["serve.host=0.0.0.0"]})
