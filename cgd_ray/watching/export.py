"""Where figures go: to Ray's metrics while a Ray session is up, else nowhere.

Like the terminal, there is one for the process. Stages hand in figures and need not know.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from cgd_ray.watching.figures import Figure

Take = Callable[[Sequence[Figure]], None]

_takers: list[Take] = []


def export(figures: Sequence[Figure]) -> None:
    """Hand figures to whoever exports them now."""
    for take in _takers:
        take(figures)


@contextmanager
def exported_to(take: Take) -> Generator[None]:
    """Let figures go to `take` for the length of the block."""
    _takers.append(take)
    try:
        yield
    finally:
        _takers.remove(take)
