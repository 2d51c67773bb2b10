"""Many responses graded at once, each within a time limit that holds whatever it contains."""

import multiprocessing
import resource
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from cgd_ray.evaluation.code import WALL_CLOCK_S, grade_code
from cgd_ray.evaluation.grading import Grade, grade_exactly, grade_symbolically
from cgd_ray.evaluation.instructions import grade_instructions

MAX_MEMORY_BYTES = 4 << 30  # address space of one grader process
TASKS_PER_PROCESS = 2_000  # sympy's caches grow: a process is replaced after so many
_BY_CHECKS = {"instructions": grade_instructions, "code": grade_code}


@dataclass(frozen=True, slots=True)
class GradeItem:
    """One response to grade; fields as the arguments of `grading.grade`.

    Two kinds more are graded by `checks` instead of a gold answer: "instructions" and "code".
    """

    gold: str
    response: str
    kind: str = "math"
    relative_tolerance: float = 0.0
    checks: str = ""


class GraderPool:
    """Grades in processes that are killed when they overrun; a context manager.

    Most answers are decided at once in the calling process; the first that needs computer algebra
    starts the pool, so a simple set never does.

    Args:
        num_processes: graders that run at once.
        timeout_s: seconds for one answer in the pool, not counting its wait.
    """

    def __init__(self, num_processes: int, timeout_s: float = 10) -> None:
        if num_processes < 1 or timeout_s <= 0:
            raise ValueError(
                f"num_processes={num_processes} and timeout_s={timeout_s} must be positive"
            )
        self._timeout_s = timeout_s
        # Not "fork": the caller may have threads. A fork server has sympy imported, so that a
        # killed grader is replaced at once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["cgd_ray.evaluation.symbolic"])
        self._pool = ProcessPool(
            max_workers=num_processes,
            max_tasks=TASKS_PER_PROCESS,
            initializer=_prepare,
            context=context,
        )

    def __enter__(self) -> Self:
        """Return the pool itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the graders."""
        self._pool.stop()
        self._pool.join()

    def grade_all(self, items: Sequence[GradeItem]) -> list[Grade]:
        """Grade every item, in order.

        An item that runs over the time limit or kills its grader is wrong, with a reason that
        begins with "timeout:"; the others are not touched by it.

        Raises:
            ValueError: an item has an unknown kind or an empty gold answer.
        """
        grades = [
            None
            if item.kind in _BY_CHECKS
            else grade_exactly(item.gold, item.response, item.kind, item.relative_tolerance)
            for item in items
        ]
        waiting = {
            index: self._schedule(items[index]) for index, done in enumerate(grades) if done is None
        }
        return [done or self._result(waiting[index]) for index, done in enumerate(grades)]

    def _schedule(self, item: GradeItem) -> "ProcessFuture[Grade]":
        if item.kind in _BY_CHECKS:
            run = _BY_CHECKS[item.kind]
            limit_s = self._timeout_s + WALL_CLOCK_S
            return self._pool.schedule(run, (item.response, item.checks), timeout=limit_s)
        arguments = (item.gold, item.response, item.relative_tolerance)
        return self._pool.schedule(grade_symbolically, arguments, timeout=self._timeout_s)

    def _result(self, future: "ProcessFuture[Grade]") -> Grade:
        try:
            return future.result()
        except FutureTimeout:
            return Grade(False, None, f"timeout: not graded within {self._timeout_s:g} s")
        except ProcessExpired as error:
            return Grade(False, None, f"timeout: the grader died (exit code {error.exitcode})")
        except (MemoryError, RecursionError) as error:
            return Grade(False, None, f"timeout: too large to grade ({type(error).__name__})")


def _prepare() -> None:
    """Cap the memory and load the parser's tables, both before the clock of an item runs."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = MAX_MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    grade_symbolically("x^2", "$x^3$")
