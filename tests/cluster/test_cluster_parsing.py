"""Ray takes the shipped cluster YAML as `ray up` does, up to the first call of a cloud."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig, Provider

REPO = Path(__file__).parents[2]
RUNS = ("llama31_8b_webinstruct_2n8g", "smollm2_135m_cpu")


def shipped(run: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((REPO / "cluster" / run / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("run", RUNS)
def test_the_autoscaler_knows_every_node_type(run: str) -> None:
    cluster = shipped(run, "aws.yaml")
    filled = prepare_config(copy.deepcopy(cluster))
    validate_config(filled)
    assert filled["head_node_type"] == "head"
    assert not filled["docker"]  # nothing of a default of Ray's own comes in
    config = AutoscalingConfig(copy.deepcopy(cluster), skip_content_hash=True)
    assert config.provider is Provider.AWS
    types = config.get_node_type_configs() or {}
    assert set(types) == {"head", "teacher", "sampler", "trainer", "server"}
    for name, kind in types.items():
        assert kind.resources == cluster["available_node_types"][name]["resources"]
        assert kind.labels == cluster["available_node_types"][name]["labels"]
    assert types["head"].max_worker_nodes == 1
    assert types["sampler"].priority > types["server"].priority


@pytest.mark.parametrize("run", RUNS)
def test_own_machines_are_bootstrapped_to_the_end(run: str) -> None:
    cluster = shipped(run, "machines.yaml")
    ready = _bootstrap_config(cluster, no_config_cache=True)
    validate_config(ready)
    (kind,) = ready["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(cluster["provider"]["worker_ips"])
