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


_streams: list[tuple[TextIO, TextIO]] = []  # standard output and error as a person sees them


def terminal() -> TextIO:
    """Return standard error as a person sees it: progress goes there."""
    return _streams[-1][1] if _streams else sys.stderr


def say(text: str) -> None:
    """Print a result to standard output as a person sees it."""
    print(text, file=_streams[-1][0] if _streams else sys.stdout, flush=True)


@contextmanager
def noise_to_file(log: Path) -> Iterator[None]:
    """Send standard output and error to a file for the length of the block, native code's too.

    Our own lines go to `terminal()` and `say`; an exception that leaves the block is shown as ever.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    shown = (_reopened(os.dup(1)), _reopened(os.dup(2)))
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _streams.append(shown)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _streams.pop()
        for number, stream in enumerate(shown, 1):
            with stream:
                os.dup2(stream.fileno(), number)


def _reopened(descriptor: int) -> TextIO:
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", buffering=1)
