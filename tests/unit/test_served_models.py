"""Which models are served, on which engines, and how the engines are set up."""

import json
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.serving.engine import Hardware, ModelFacts, choose_engine, model_facts
from cgd_ray.serving.models import Adapter, ServedModel, served_models
from cgd_ray.settings import load

RUN = Path(__file__).parents[2] / "jobs/runs/demo.toml"
CPU, H100 = Hardware(False, None), Hardware(True, 79)
GIB = 2**30


def folder(path: Path, **config: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(b"x" * 1000)
    return path


def adapter(path: Path, base: str, rank: int = 12) -> Path:
    path.mkdir(parents=True)
    config = {"r": rank, "base_model_name_or_path": base}
    (path / "adapter_config.json").write_text(json.dumps(config))
    (path / "adapter_model.safetensors").touch()
    return path


def models(tmp_path: Path, **wanted: object) -> list[ServedModel]:
    texts = {name: str(source) for name, source in wanted.items()}
    return served_models(texts, lambda: "/runs/base", lambda: tmp_path / "trained")


def test_base_student_folders_and_hub_ids_stand_side_by_side(tmp_path: Path) -> None:
    other = folder(tmp_path / "other")
    served = models(tmp_path, base="base", student="student", other=other, hub="Qwen/Qwen3-0.6B")
    assert [(model.id, model.source) for model in served] == [
        ("base", "/runs/base"),
        ("student", str(tmp_path / "trained")),
        ("other", str(other)),
        ("hub", "Qwen/Qwen3-0.6B"),
    ]


def test_a_student_that_is_not_wanted_is_not_looked_for(tmp_path: Path) -> None:
    def untrained() -> Path:
        raise AssertionError("looked for")

    assert served_models({"b": "base"}, lambda: "/runs/base", untrained)[0].id == "b"


def test_lora_students_share_the_engine_of_their_base(tmp_path: Path) -> None:
    one = adapter(tmp_path / "one", "/somewhere/else")
    two = adapter(tmp_path / "two", "Qwen/Qwen3-0.6B", rank=40)
    served = models(tmp_path, one=one, qwen="Qwen/Qwen3-0.6B", base="base", two=two)
    assert [model.ids for model in served] == [("qwen", "two"), ("base", "one")]
    settings = load(RUN)
    kwargs = choose_engine(served[0], None, CPU, settings).kwargs
    assert (kwargs["enable_lora"], kwargs["max_loras"], kwargs["max_lora_rank"]) == (True, 1, 64)
    plain = ServedModel("a", "b")
    assert "enable_lora" not in choose_engine(plain, None, CPU, settings).kwargs


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    pickled = folder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    (tmp_path / "empty").mkdir()
    lonely = adapter(tmp_path / "lonely", "Qwen/Qwen3-0.6B")
    for name, source, words in (
        ("a", pickled, r"serve\.models\.a=.* holds no \*\.safetensors"),
        ("b", tmp_path / "empty", r"serve\.models\.b=.* is no model folder"),
        ("c", tmp_path / "none", r"serve\.models\.c=.*: there is no such folder"),
        ("d", lonely, r'serve\.models\.d is .* of Qwen/Qwen3-0.6B.*add serve\.models\.base="Qwen'),
    ):
        with pytest.raises(UserError, match=words):
            models(tmp_path, **{name: source})


def test_a_folder_says_what_its_cache_takes(tmp_path: Path) -> None:
    path = folder(
        tmp_path / "m",
        max_position_embeddings=8192,
        num_hidden_layers=30,
        hidden_size=576,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    assert model_facts(str(path)) == ModelFacts(1000, 8192, 30 * 2 * 3 * 64 * 2)
    assert model_facts("Qwen/Qwen3-0.6B") is None


def test_a_model_with_a_shorter_context_than_the_setting_gets_its_own() -> None:
    settings = load(RUN, ["student.max_model_len=2048"])
    short = choose_engine(ServedModel("m", "f"), ModelFacts(1, 512, None), CPU, settings)
    assert short.kwargs["max_model_len"] == 512
    assert "m: prompt + answer up to 512 tokens, all that the model can" in short.lines
    long = choose_engine(ServedModel("m", "f"), ModelFacts(1, 8192, None), CPU, settings)
    assert long.kwargs["max_model_len"] == 2048


@pytest.mark.parametrize(
    ("gib", "expected"), [(1, 1), (55, 1), (56, 2), (110, 2), (140, 4), (300, 8)]
)
def test_as_few_gpus_as_hold_the_weights(gib: int, expected: int) -> None:
    settings, facts = load(RUN), ModelFacts(gib * GIB, None, None)
    choice = choose_engine(ServedModel("m", "f"), facts, H100, settings)
    assert choice.kwargs["tensor_parallel_size"] == expected
    assert choice.kwargs["load_format"] == "safetensors"
    assert any(f"{expected} GPUs of 79 GiB" in line for line in choice.lines)


def test_a_set_number_of_gpus_is_taken() -> None:
    settings = load(RUN, ["serve.tensor_parallel_size=4"])
    choice = choose_engine(ServedModel("m", "f"), ModelFacts(GIB, None, None), H100, settings)
    assert choice.kwargs["tensor_parallel_size"] == 4


def test_every_choice_is_said() -> None:
    settings = load(RUN, ["serve.kv_cache_gib=1", "student.max_model_len=1024"])
    model = ServedModel("m", "f", (Adapter("l", "g", 8),))
    choice = choose_engine(model, ModelFacts(GIB, 8192, 2**20), CPU, settings)
    assert choice.lines == (
        "m: prompt + answer up to 1024 tokens (student.max_model_len)",
        "m: CPU engine, bfloat16",
        "m: 1 GiB of key-value cache (serve.kv_cache_gib) hold 1,024 tokens: "
        "1.0 requests of full length",
        f"m: at most {settings.sampling.max_num_seqs} answers at once (sampling.max_num_seqs)",
        "m: LoRA students on the same engine: l",
    )
