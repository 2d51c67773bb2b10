"""Sharding, offload and adapters by settings: what is accepted and what DeepSpeed is told."""

import pytest
from pydantic import ValidationError

from cgd_ray.settings import TrainSettings
from cgd_ray.training.deepspeed_config import deepspeed_config

CPU_MEMORY = {"device": "cpu", "pin_memory": True}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_each_stage_is_passed_on(stage: int) -> None:
    zero = deepspeed_config(TrainSettings(zero_stage=stage), 1)["zero_optimization"]
    assert zero["stage"] == stage
    assert "offload_optimizer" not in zero
    assert "offload_param" not in zero


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_optimiser_is_kept_in_the_machines_memory(stage: int) -> None:
    train = TrainSettings(zero_stage=stage, offload_optimizer=True)
    zero = deepspeed_config(train, 1)["zero_optimization"]
    assert zero["offload_optimizer"] == CPU_MEMORY
    assert "offload_param" not in zero


def test_the_weights_are_kept_in_the_machines_memory() -> None:
    train = TrainSettings(zero_stage=3, offload_optimizer=True, offload_parameters=True)
    zero = deepspeed_config(train, 1)["zero_optimization"]
    assert zero["offload_param"] == zero["offload_optimizer"] == CPU_MEMORY


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"offload_optimizer": True}, "train.offload_optimizer needs train.zero_stage of 1, 2"),
        ({"offload_parameters": True}, "train.offload_parameters needs train.zero_stage=3, not 0"),
        (
            {"offload_parameters": True, "zero_stage": 2},
            "train.offload_parameters needs train.zero_stage=3, not 2",
        ),
    ],
)
def test_only_what_is_sharded_is_offloaded(settings: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        TrainSettings(**settings)
