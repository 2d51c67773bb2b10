"""Each step's figures: what they are made of, and what the trackers are told."""

import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from cgd_ray.errors import UserError
from cgd_ray.settings import TrainSettings
from cgd_ray.store import LocalStore
from cgd_ray.training.batch import PackedIndex
from cgd_ray.training.flops import ComputeShape, compute_shape, peak_flops, training_flops
from cgd_ray.training.measuring import StepMeter
from cgd_ray.training.metrics import StepMetrics, progress_note, read_metrics
from cgd_ray.training.task import TrainTask
from cgd_ray.training.tracking import Tracking, check_trackers, tracked_values

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
}
LAYER = 8 * (24 + 12 + 12) + 24 * 8 + 3 * 8 * 16 + 2 * 8  # q, k, v; out; MLP; norms


def test_flops_by_hand() -> None:
    shape = ComputeShape(num_body=100, num_head=10, num_layers=3, attention_width=4)
    assert training_flops(shape, 7, 2, 25) == 6 * (100 * 7 + 10 * 2) + 12 * 3 * 4 * 25
    adapters = ComputeShape(100, 10, 3, 4, trained_share=0.0)
    assert training_flops(adapters, 7, 2, 0) == 4 * (100 * 7 + 10 * 2)


@pytest.mark.parametrize("tied", [True, False])
def test_the_shape_of_a_model(tied: bool) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
    assert compute_shape(model) == ComputeShape(3 * LAYER + 8, 50 * 8, 3, 24)
    model.lm_head.requires_grad_(tied)
    assert compute_shape(model).trained_share == (
        1.0 if tied else pytest.approx(1 - 400 / 4544, abs=0.02)
    )


def test_of_experts_those_that_a_token_meets_count() -> None:
    sizes = {**SIZES, "num_hidden_layers": 1, "num_experts_per_tok": 2}
    few, many = (
        compute_shape(MixtralForCausalLM(MixtralConfig(**sizes, num_local_experts=n)))
        for n in (4, 8)
    )
    assert many.num_body - few.num_body == 4 * 8, "the router alone is larger"


def test_peaks_are_those_of_the_data_sheets() -> None:
    assert peak_flops("NVIDIA H200", "bfloat16") == 989e12
    assert peak_flops("NVIDIA H20", "bfloat16") == 148e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops("NVIDIA L40S", "bfloat16") == 362e12
    assert peak_flops("NVIDIA L4", "bfloat16") == 121e12
    assert peak_flops("NVIDIA H200", "float32") is None
    assert peak_flops("", "bfloat16") is None


def metrics_of(peak: float | None) -> StepMetrics:
    zero = np.zeros(3, dtype=np.int64)
    index = PackedIndex(("f",), zero, zero, np.array([10, 6, 4]), np.array([5, 2, 1]), zero)
    meter = StepMeter(index, ComputeShape(100, 0, 0, 0), num_workers=2, peak_flops=peak)
    return meter.measure(
        [0, 2],
        step=3,
        loss=1.5,
        learning_rate=1e-4,
        grad_norm=2.0,
        seconds=0.5,
        data_wait_s=0.1,
        num_fetched=4,
    )


def test_a_step_is_measured() -> None:
    metrics = metrics_of(peak=84_000.0)
    assert (metrics.num_tokens, metrics.num_targets) == (14, 6)
    assert metrics.padding_share == pytest.approx(1 - 14 / 20)
    assert metrics.mfu == pytest.approx(6 * 100 * 14 / 0.5 / (2 * 84_000))
    assert 0.01 < metrics.peak_memory_gib < 100
    assert metrics_of(None).mfu is None


def test_the_progress_line() -> None:
    assert progress_note([metrics_of(None)]) == (
        "loss 1.500  28 tokens/s, 12 targets/s  waits for data 20%"
    )
    note = progress_note([metrics_of(84_000.0)])
    assert "MFU 10.0%" in note


def test_trackers_see_rates_and_no_unknown_figures() -> None:
    values = tracked_values(metrics_of(None))
    assert values["train/loss"] == 1.5
    assert values["train/tokens_per_second"] == 28
    assert values["train/target_tokens_per_second"] == 12
    assert values["train/data_wait_share"] == pytest.approx(0.2)
    assert {"train/padding_share", "train/grad_norm", "train/peak_memory_gib"} <= set(values)
    assert "train/mfu" not in values and "train/step" not in values
    assert "train/mfu" in tracked_values(metrics_of(1e9))


def task(tmp_path: Path, *trackers: str) -> TrainTask:
    train = TrainSettings(trackers=trackers)  # type: ignore[arg-type]
    return TrainTask(train, 1, "m", str(tmp_path), "examples", "checkpoint-1", "card", False, 1)


def events(folder: Path) -> list[Event]:
    """Return the events of all files of a TensorBoard folder, in order of their names."""
    found: list[Event] = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_tensorboard_reads_the_curves_back(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    made = metrics_of(None)
    with Tracking(task(tmp_path, "tensorboard"), store, active=True) as tracking:
        tracking.add(made)
    read = events(tmp_path / "checkpoint-1/tensorboard")
    values = {v.tag: v.simple_value for e in read for v in e.summary.value}
    assert values == pytest.approx(tracked_values(made))
    assert {e.step for e in read if e.summary.value} == {3}
    starts = [e.step for e in read if e.HasField("session_log")]
    assert starts == [3], "a resumed run replaces what it repeats"
    assert read_metrics(store, "checkpoint-1") == [made]


def test_other_workers_write_nothing(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    with Tracking(task(tmp_path, "tensorboard", "wandb"), store, active=False) as tracking:
        tracking.add(metrics_of(None))
    assert list(store.list("")) == []


def test_a_missing_package_is_one_line_that_names_the_command() -> None:
    check_trackers(["tensorboard"])
    for name in ("wandb", "mlflow"):
        if name in sys.modules:
            continue
        with pytest.raises(UserError, match=rf"names {name}, .*`pip install {name}`") as raised:
            check_trackers([name])
        assert "\n" not in str(raised.value)


class Recorder:
    """A stand-in for a service's client that notes every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self.calls.append((name, args, options))


def test_wandb_is_resumed_by_the_name_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, begun = Recorder(), {}
    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    fake.init = lambda **options: begun.update(options) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    made = metrics_of(None)
    with Tracking(task(tmp_path, "wandb"), LocalStore(str(tmp_path)), active=True) as tracking:
        tracking.add(made)
    assert (begun["id"], begun["project"], begun["resume"]) == ("checkpoint-1", "cgd_ray", "allow")
    assert run.calls == [("log", (tracked_values(made),), {"step": 3}), ("finish", (), {})]
