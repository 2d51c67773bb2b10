"""What is told before training starts: students, tokenizers, adapters and kernels."""

import types
from pathlib import Path

import pytest
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    MambaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen3NextConfig,
)

from cgd_ray.errors import UserError
from cgd_ray.settings import LoraSettings
from cgd_ray.student import model_context, tokenizer_hash
from cgd_ray.training import liger
from cgd_ray.training.families import check_student, check_tokenizer
from cgd_ray.training.liger import apply_liger, check_liger
from tests.support.tiny_families import FAMILIES
from tests.support.tiny_student import save_tokenizer

NO_LORA = LoraSettings()


def saved(config: PreTrainedConfig, folder: Path) -> str:
    config.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_supported_families_pass(family: str, tmp_path: Path) -> None:
    source = saved(FAMILIES[family](), tmp_path)
    check_student(source, 128, LoraSettings(rank=4, targets=("q_proj", "v_proj")))
    assert model_context(source) == 256


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (Gemma2Config(), "caps its attention scores"),
        (Qwen3NextConfig(num_hidden_layers=4), "mix the documents .*linear_attention"),
        (MambaConfig(), "mix the documents"),
        (Gemma3TextConfig(use_bidirectional_attention=True), "lets tokens see later ones"),
    ],
)
def test_students_that_would_be_trained_wrongly_are_refused(
    config: PreTrainedConfig, line: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=line):
        check_student(saved(config, tmp_path), 128, NO_LORA)


def test_positions_that_stretch_with_the_row_are_refused_where_they_do(tmp_path: Path) -> None:
    factors = [1.0] * 48
    rope = {"rope_type": "longrope", "short_factor": factors, "long_factor": factors}
    config = Phi3Config(
        rope_parameters={**rope, "rope_theta": 1e4, "original_max_position_embeddings": 4096},
        original_max_position_embeddings=4096,
        max_position_embeddings=131072,
        pad_token_id=0,
    )
    source = saved(config, tmp_path)
    check_student(source, 4096, NO_LORA)
    with pytest.raises(UserError, match=r"beyond 4096 tokens .*sequence_length=8192"):
        check_student(source, 8192, NO_LORA)


def test_a_folder_without_a_configuration_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its configuration cannot be loaded") as refusal:
        check_student(str(tmp_path), 128, NO_LORA)
    assert "\n" not in str(refusal.value)


def test_adapters_for_layers_that_are_not_there_are_refused(tmp_path: Path) -> None:
    source = saved(FAMILIES["llama"](), tmp_path)
    with pytest.raises(UserError, match=r"called c_attn; it has down_proj, .*v_proj$"):
        check_student(source, 128, LoraSettings(rank=4, targets=("q_proj", "c_attn")))


def test_the_tokenizer_of_the_examples_must_be_the_students(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    source, before = str(tmp_path), tokenizer_hash(str(tmp_path))
    check_tokenizer(source, "examples-1", before)
    check_tokenizer(source, "examples-1", None)
    template = tmp_path / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    with pytest.raises(UserError, match="remove examples-1 and make them again"):
        check_tokenizer(source, "examples-1", before)


def test_the_hash_follows_the_vocabulary_and_not_where_it_lies(tmp_path: Path) -> None:
    one, other, grown = (tmp_path / name for name in ("one", "other", "grown"))
    save_tokenizer(one)
    save_tokenizer(other)
    tokenizer = AutoTokenizer.from_pretrained(one)
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(grown)
    assert tokenizer_hash(str(one)) == tokenizer_hash(str(other)) != tokenizer_hash(str(grown))


def test_liger_asked_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="needs GPUs"):
        check_liger("on", on_gpu=False)
    monkeypatch.setattr(liger, "_installed", lambda: False)
    with pytest.raises(UserError, match="pip install liger-kernel"):
        check_liger("on", on_gpu=True)
    check_liger("auto", on_gpu=True)


def test_liger_replaces_what_it_knows_and_leaves_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package needs a GPU: its interface is stood in for, as of liger-kernel 0.8.5."""
    calls: list[dict[str, object]] = []
    patches = types.SimpleNamespace(
        MODEL_TYPE_TO_APPLY_LIGER_FN={"llama": None, "mixtral": None},
        _apply_liger_kernel_to_instance=lambda **options: calls.append(options),
    )
    monkeypatch.setattr(liger, "_installed", lambda: True)
    monkeypatch.setattr(liger.importlib, "import_module", lambda _: patches)
    llama, mixtral, gpt2 = (
        types.SimpleNamespace(config=types.SimpleNamespace(model_type=kind))
        for kind in ("llama", "mixtral", "gpt2")
    )
    assert not apply_liger(llama, "off", on_gpu=True)
    assert not apply_liger(llama, "auto", on_gpu=False)
    assert not apply_liger(mixtral, "auto", on_gpu=True), "experts only where asked for"
    assert not calls
    assert apply_liger(llama, "auto", on_gpu=True)
    assert apply_liger(mixtral, "on", on_gpu=True)
    assert calls[0] == {
        "model": llama,
        "cross_entropy": False,
        "fused_linear_cross_entropy": False,
    }
    with pytest.raises(UserError, match="knows no gpt2"):
        apply_liger(gpt2, "on", on_gpu=True)
