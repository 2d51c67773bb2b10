"""Where the workers of one generation meet: the teacher's limits, and counts for the live line."""

from collections import Counter
from dataclasses import dataclass, field

from cgd_ray.teacher.governor import Governor, Grant, Report, Usage


@dataclass(frozen=True, slots=True)
class DeskStatus:
    """What is known at one moment."""

    made: dict[str, int]  # rows committed since the stage began, by stage
    failed: dict[str, int]
    teacher: Usage
    tokens: dict[str, int] = field(default_factory=dict)  # of drafts: "prompt", "generated"


class Desk:
    """One object for a whole cluster; Ray makes an actor of it.

    Args:
        governor: of the teacher's calls.
    """

    def __init__(self, governor: Governor) -> None:
        self._governor = governor
        self._made: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    def exchange(self, report: Report) -> Grant:
        """Take a worker's report of its calls, and say how many more it may make."""
        return self._governor.exchange(report)

    def count(
        self,
        stage: str,
        made: int,
        failed: int,
        prompt_tokens: int = 0,
        generated_tokens: int = 0,
    ) -> None:
        """Add rows that a worker has committed, and a sampler's tokens."""
        self._made[stage] += made
        self._failed[stage] += failed
        self._tokens.update(prompt=prompt_tokens, generated=generated_tokens)

    def halt(self, reason: str) -> None:
        """Let no further call start."""
        self._governor.halt(reason)

    def status(self) -> DeskStatus:
        """Return what is known now."""
        usage = self._governor.usage()
        return DeskStatus(dict(self._made), dict(self._failed), usage, dict(self._tokens))
