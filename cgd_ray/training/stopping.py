"""How training is asked to stop: all workers then save a state at the same step and end.

Each worker is asked once a step, and the answers travel with the step's loss: no exchange is added.
"""

import signal
import threading

_TERMINATED = threading.Event()


class Stopped(Exception):
    """Training was asked to stop; its state is saved, and running it again goes on from there."""


def stop_on_sigterm() -> None:
    """Let SIGTERM ask this process's training to stop, not end it. For the main thread only."""
    signal.signal(signal.SIGTERM, lambda *_: _TERMINATED.set())


def terminated() -> bool:
    """Return whether SIGTERM has come."""
    return _TERMINATED.is_set()
