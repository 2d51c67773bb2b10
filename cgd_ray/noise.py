"""Library and engine chatter goes to a file, so that the terminal holds our lines only."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


_streams: list[TextIO] = []


def terminal() -> TextIO:
    """Return the stream that a person sees."""
    return _streams[-1] if _streams else sys.stderr


@contextmanager
def noise_to_file(log: Path) -> Iterator[None]:
    """Send standard error to a file for the length of the block, native code's included.

    Our own lines go to `terminal()`; an exception that leaves the block is shown as ever.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    before = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    _streams.append(os.fdopen(before, "w", encoding="utf-8", errors="replace", buffering=1))
    try:
        yield
    finally:
        sys.stderr.flush()
        with _streams.pop() as stream:
            os.dup2(stream.fileno(), 2)
