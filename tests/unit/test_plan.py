"""The arithmetic of a run, checked by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cgd_ray.examples.packing import assign_rows
from cgd_ray.plan import Plan, derive, describe, size, student_shape, training_bytes
from cgd_ray.settings import Settings, load, parse
from cgd_ray.training.memory import EMBEDDED_SHAPE, MemorySettings, estimate_memory
from cgd_ray.training.order import num_steps

PAPER = Path(__file__).parents[2] / "jobs/runs/llama31_8b_webinstruct_2n8g.toml"


def settings(**sections: dict[str, object]) -> Settings:
    data = {
        "run": {"name": "r", "root": "here"},
        "prompts": {"train": "a.jsonl", "test": "b.jsonl"},
    }
    return parse(data | sections, "test")


def test_the_demo_by_hand(demo: Callable[..., Settings]) -> None:
    plan = derive(
        demo("examples.prompt_only_share=0.5", "train.num_epochs=2", "train.zero_stage=0")
    )
    assert plan == Plan(
        num_prompts=256,
        num_drafts=256,
        num_teacher_calls=512,
        num_examples=512,  # one plain one beside each
        max_example_tokens=1024,  # 896 of prompt + 128 + 1024 + 2048, cut at packing's 1024
        max_tokens_an_epoch=524_288,
        max_shard_bytes=2_621_440,
        batches_a_worker_step=1,
        max_steps=1024,
        num_parameters=134_515_008,
        weight_bytes=269_030_016,  # bfloat16
        training_bytes_a_worker=134_515_008 * 16,
        training_memory=estimate_memory(EMBEDDED_SHAPE, MemorySettings(0, 1, 1024)),
        state_bytes=134_515_008 * 14,
    )


def test_the_papers_run_by_hand() -> None:
    """8.03e9 weights, ZeRO-3 over 16 workers: (12 + 2 + 2) / 16 = 1 byte a weight and worker."""
    plan = derive(load(PAPER))
    assert plan.num_teacher_calls == 200_000
    assert plan.batches_a_worker_step == 4
    assert plan.max_steps == 1563  # 100,000 examples in steps of 64, the last one short
    assert plan.max_example_tokens == 4096
    assert plan.training_bytes_a_worker == pytest.approx(8.03e9, rel=1e-4)
    assert plan.weight_bytes == pytest.approx(16.06e9, rel=1e-4)
    assert plan.state_bytes == pytest.approx(112.42e9, rel=1e-4)


@pytest.mark.parametrize(
    ("stage", "dtype", "bytes_a_weight"),
    [
        (0, "bfloat16", 12 + 2 + 2),
        (1, "bfloat16", 12 / 4 + 2 + 2),
        (2, "bfloat16", 12 / 4 + 2 / 4 + 2),
        (3, "bfloat16", (12 + 2 + 2) / 4),
        (0, "float32", 12 + 4 + 4),
        (2, "float32", 12 / 4 + 4 / 4 + 4),
    ],
)
def test_memory_of_each_zero_stage(stage: int, dtype: str, bytes_a_weight: float) -> None:
    train = {"num_workers": 4, "batches_per_step": 8, "zero_stage": stage, "dtype": dtype}
    assert training_bytes(1e9, settings(train=train)) == pytest.approx(bytes_a_weight * 1e9)


@pytest.mark.parametrize(
    ("objective", "longest"),
    [
        ("sft", 8000),  # the data's own solutions have no limit but packing's
        ("distilled_sft", 1800 + 300),
        ("cft", 1800 + 200 + 100),
        ("cgd", 1800 + 200 + 100 + 300),
        ("cgd_no_critique", 1800 + 200 + 300),
        ("cgd_no_draft", 1800 + 100 + 300),
    ],
)
def test_the_longest_example_of_each_objective(objective: str, longest: int) -> None:
    sections = {
        "student": {"max_model_len": 2000},
        "sampling": {"max_tokens": 200},
        "teacher": {"critique_max_tokens": 100, "refinement_max_tokens": 300},
        "packing": {"sequence_length": 8000},
        "evaluate": {"max_tokens": 100},
        "examples": {"objective": objective},
    }
    assert derive(settings(**sections)).max_example_tokens == longest


def test_drafts_and_plain_examples_multiply() -> None:
    plan = derive(
        settings(
            prompts={"train": "a", "test": "b", "num_train": 30},
            sampling={"num_drafts": 4},
            examples={"prompt_only_share": 0.25},
            train={"num_workers": 2, "batches_per_step": 6, "num_epochs": 3},
        )
    )
    assert (plan.num_prompts, plan.num_drafts, plan.num_teacher_calls) == (30, 120, 240)
    assert plan.num_examples == 160
    assert plan.batches_a_worker_step == 3
    assert plan.max_steps == 27 * 3


@pytest.mark.parametrize("length", [10, 150, 500, 1024])
def test_no_packing_takes_more_steps_than_planned(
    length: int, demo: Callable[..., Settings]
) -> None:
    s = demo("train.batches_per_step=4")
    plan = derive(s)
    assert plan.num_examples is not None
    assert plan.max_steps is not None
    rows = assign_rows([length] * plan.num_examples, s.packing.sequence_length, None)
    steps = num_steps(len(rows), s.train.batches_per_step, s.train.num_epochs, None)
    assert steps <= plan.max_steps
    if length == 1024:
        assert steps == plan.max_steps
    shown = describe(s, plan)
    assert f"at most {plan.max_steps:,} (train.num_epochs={s.train.num_epochs})" in shown


def test_a_limit_on_steps_is_the_plan(demo: Callable[..., Settings]) -> None:
    assert derive(demo("train.max_steps=7")).max_steps == 7


def test_the_plan_as_text(golden: Callable[[str, str], None]) -> None:
    s = load(PAPER)
    golden("plan.txt", describe(s, derive(s)) + "\n")


def test_adapters_and_offload_are_in_the_memory_shown(demo: Callable[..., Settings]) -> None:
    peaks = []
    for changed in ([], ["train.lora.rank=8"], ["train.zero_stage=1", "train.offload_optimizer=1"]):
        s = demo("train.zero_stage=0", *changed)
        memory = derive(s).training_memory
        assert memory is not None
        assert f"at most {size(memory.peak)} a worker (ZeRO-" in describe(s, derive(s))
        peaks.append(memory.states)
    assert peaks[1] < peaks[0] / 3
    assert peaks[2] < peaks[0] / 3
    adapters = demo("train.lora.rank=8")
    assert "ZeRO-0, LoRA" in describe(adapters, derive(adapters))


def test_the_shape_of_a_folder_is_read(tmp_path: Path) -> None:
    assert student_shape(str(tmp_path)) is None
    config = {
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert student_shape(str(tmp_path)) == EMBEDDED_SHAPE
    (tmp_path / "config.json").write_text('{"model_type": "unusual"}')
    assert student_shape(str(tmp_path)) is None


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    s = settings(student={"model": "some/model"})
    plan = derive(s)
    assert plan.num_prompts is plan.max_steps is plan.weight_bytes is None
    shown = describe(s, plan)
    assert "None" not in shown
    assert shown.count("unknown") == 1
    assert "unknown (set student.num_parameters)" in shown


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (None, "unknown"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (2_621_440, "2.62 MB"),
        (16.06e9, "16.1 GB"),
        (3.4e12, "3.4 TB"),
        (5e15, "5e+03 TB"),
    ],
)
def test_sizes_as_people_read_them(num_bytes: float | None, text: str) -> None:
    assert size(num_bytes) == text
