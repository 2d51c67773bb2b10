"""Settings -> engine, pool and placement."""

import pytest

from cgd_ray.errors import UserError
from cgd_ray.sampling.engine import engine_bundle, engine_kwargs, pool_shape
from cgd_ray.settings import SamplingSettings, StudentSettings, parse

STUDENT = StudentSettings(max_model_len=2048)


@pytest.mark.parametrize(("num_gpus", "share"), [(1.0, 0.92), (0.5, 0.46), (0.25, 0.23)])
def test_engines_that_share_a_gpu_share_its_memory(num_gpus: float, share: float):
    sampling = SamplingSettings(num_gpus=num_gpus)
    assert engine_bundle(sampling, on_gpu=True) == {"bundles": [{"CPU": 1, "GPU": num_gpus}]}
    assert engine_kwargs(sampling, STUDENT, on_gpu=True)["gpu_memory_utilization"] == share


def test_an_engine_over_several_gpus_takes_each_whole():
    sampling = SamplingSettings(tensor_parallel_size=2, pipeline_parallel_size=3)
    assert engine_bundle(sampling, on_gpu=True)["bundles"] == [{"CPU": 1, "GPU": 1.0}] * 6
    kwargs = engine_kwargs(sampling, STUDENT, on_gpu=True)
    assert (kwargs["tensor_parallel_size"], kwargs["pipeline_parallel_size"]) == (2, 3)


@pytest.mark.parametrize("name", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_a_part_of_a_gpu_cannot_be_one_of_several(name: str):
    data = {
        "run": {"name": "r", "root": "here"},
        "prompts": {"train": "a.jsonl", "test": "b.jsonl"},
        "sampling": {"num_gpus": 0.5, name: 2},
    }
    with pytest.raises(UserError, match=r"sampling\.num_gpus=0\.5 .* set one or the other to 1"):
        parse(data, "test")


def test_a_cpu_engine_asks_for_no_gpu():
    assert engine_bundle(SamplingSettings(num_gpus=0.5), on_gpu=False) == {"bundles": [{"CPU": 1}]}
    kwargs = engine_kwargs(SamplingSettings(), STUDENT, on_gpu=False)
    assert "gpu_memory_utilization" not in kwargs
    assert kwargs["max_num_batched_tokens"] >= STUDENT.max_model_len


@pytest.mark.parametrize("rows", [1, 16, 64, 1000])
@pytest.mark.parametrize("num_seqs", [1, 64, 256])
@pytest.mark.parametrize("stages", [1, 4])
def test_the_pool_holds_enough_to_fill_the_engine_and_to_grow(
    rows: int, num_seqs: int, stages: int
):
    shape = pool_shape(
        SamplingSettings(
            rows_per_request=rows, max_num_seqs=num_seqs, pipeline_parallel_size=stages
        )
    )
    in_engine = shape.max_concurrent_batches * rows
    assert in_engine >= 2 * num_seqs * stages
    assert shape.max_concurrent_batches == 2 or in_engine - rows < 2 * num_seqs * stages
    # Ray Data adds an actor from 1.75 times the concurrent batches on.
    assert shape.max_tasks_in_flight >= 1.75 * shape.max_concurrent_batches
