"""Library and engine chatter goes to a file, so that the terminal holds our lines only."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


@contextmanager
def noise_to_file(log: Path) -> Iterator[None]:
    """Send what libraries write to file descriptor 2, native code included, to a file.

    Python's `sys.stderr` keeps writing to the terminal: progress and tracebacks stay visible.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    terminal = os.dup(2)
    before = sys.stderr
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    # Loggers that libraries configure write to the file: they look up fd 2 through this handler.
    handler = logging.StreamHandler(os.fdopen(os.dup(2), "w", encoding="utf-8"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    sys.stderr = os.fdopen(terminal, "w", encoding="utf-8", errors="replace", buffering=1)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(sys.stderr.fileno(), 2)
        sys.stderr = before
