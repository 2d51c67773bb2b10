"""What `cgd doctor` prints: a line a check, and an error that names those that failed."""

from pathlib import Path

import pytest

from cgd_ray.doctor import doctor
from cgd_ray.errors import UserError
from cgd_ray.processes import free_port
from cgd_ray.settings import Settings, parse
from tests.support.tiny_student import tiny_student


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_student(tmp_path_factory.mktemp("doctor") / "student")


def settings(folder: Path, student: Path, **sections: dict[str, object]) -> Settings:
    data: dict[str, dict[str, object]] = {
        "run": {"name": "r", "root": str(folder / "store"), "work_dir": str(folder)},
        "prompts": {
            "train": "reasoning-gym:chain_sum",
            "num_train": 4,
            "test": "reasoning-gym:chain_sum",
            "num_test": 2,
        },
        "local": {"tutor": True},
        "student": {"model": str(student), "max_model_len": 512},
        "sampling": {"max_tokens": 64},
        "evaluate": {"max_tokens": 64},
        "packing": {"sequence_length": 256},
        "serve": {"port": free_port()},
    }
    for name, section in sections.items():
        data[name] = data.get(name, {}) | section
    return parse(data, "test")


def lines(text: str) -> dict[str, tuple[str, str]]:
    """Return verdict and words of each check."""
    rows = (line.split(None, 2) for line in text.splitlines())
    return {name: (verdict, words) for verdict, name, words in rows}


def test_all_is_well(tmp_path: Path, student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    s = settings(tmp_path, student)
    doctor(s)
    found = lines(capsys.readouterr().out)
    assert {verdict for verdict, _ in found.values()} == {"ok"}
    assert found["training"][1] == "rows of 256 tokens suit this student; trackers: tensorboard"
    assert found["serving"][1] == (
        f"127.0.0.1:{s.serve.port} is free; no API key: this machine alone is served"
    )


def test_each_trouble_has_its_line(
    tmp_path: Path,
    student: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CGD_API_KEYS", raising=False)
    s = settings(
        tmp_path,
        student,
        train={"lora": {"rank": 4, "targets": ["no_such_layer"]}},
        serve={"host": "0.0.0.0"},
    )
    with pytest.raises(UserError, match=r"2 of \d+ checks failed: training, serving"):
        doctor(s)
    found = lines(capsys.readouterr().out)
    assert found["training"][0] == found["serving"][0] == "FAIL"
    assert "no_such_layer" in found["training"][1]
    assert "set serve.api_keys_file" in found["serving"][1]
