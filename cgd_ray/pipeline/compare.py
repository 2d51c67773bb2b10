"""`cgd compare A B`: two students, or several trainings of each, task by task."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.evaluation.methods import ONE_PASS
from cgd_ray.evaluation.paired import Comparison, compare_runs, describe
from cgd_ray.evaluation.setup import Setup
from cgd_ray.evaluation.statistics import Verdicts, holm
from cgd_ray.evaluation.summary import BASE, STUDENT, verdicts_of
from cgd_ray.noise import say
from cgd_ray.pipeline.run import opened
from cgd_ray.records import Score
from cgd_ray.settings import load
from cgd_ray.shards import read_records
from cgd_ray.store import Store, open_store

# What may differ between two evaluations that are compared: names, places, and the run's seed.
_OWN = ("id", "source", "seed")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The scores of one training run's student, or of the base model."""

    name: str  # as the user wrote it
    setups: dict[str, Setup]  # by task, one pass alone
    scores: dict[str, list[Score]]  # of the one model, by task

    def verdicts(self, task: str) -> Verdicts:
        """Return the verdicts on one task by problem."""
        return verdicts_of(self.scores[task], self.scores[task][0].model)


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """Two sides on one task."""

    task: str
    accuracies: tuple[float, float]
    comparison: Comparison
    adjusted_p: float | None  # by Holm, if there are several tasks


def compare(first: str, second: str) -> None:
    """Print, for each task of both, how the second side's student does against the first's.

    Args:
        first: a run file or a folder of scores; several, joined by commas, are trainings of the
            same recipe with different seeds.
        second: likewise.

    Raises:
        UserError: a side has no scores, or the two were not evaluated alike.
    """
    a, b = ([evaluated(name) for name in side.split(",")] for side in (first, second))
    found = compare_sides(a, b)
    for line in comparison_lines(found, first, second):
        say(line)


def compare_sides(
    first: Sequence[Evaluated], second: Sequence[Evaluated], seed: int = 0
) -> list[TaskComparison]:
    """Return the comparison of two sides on every task that all their runs have.

    Args:
        first: one or more trainings of a recipe.
        second: likewise.
        seed: of the bootstrap, which is used where each side has one training.

    Raises:
        UserError: they have no task in common, or a task was not asked alike.
    """
    runs = [*first, *second]
    tasks = [task for task in first[0].setups if all(task in run.setups for run in runs)]
    if not tasks:
        has = "; ".join(f"{run.name}: {', '.join(run.setups) or 'none'}" for run in runs)
        raise UserError(f"no task was evaluated for all of them ({has})")
    found: list[tuple[str, tuple[float, float], Comparison]] = []
    for task in tasks:
        _check_alike(task, runs)
        sides = tuple([run.verdicts(task) for run in side] for side in (first, second))
        try:
            compared = compare_runs(sides[0], sides[1], seed)
        except ValueError as error:
            raise UserError(f"{task}: {error}") from error
        accuracies = (_accuracy(sides[0]), _accuracy(sides[1]))
        found.append((task, accuracies, compared))
    adjusted = holm([compared.p for *_, compared in found]) if len(found) > 1 else [None]
    return [TaskComparison(*row, p) for row, p in zip(found, adjusted, strict=True)]


def comparison_lines(found: Sequence[TaskComparison], first: str, second: str) -> list[str]:
    """Return a table of comparisons, and what its intervals leave out."""
    width = max(len(row.task) for row in found)
    lines = [f"A = {first}", f"B = {second}", f"{'task':<{width}}       A       B  B - A"]
    for row in found:
        a, b = row.accuracies
        said = describe(row.comparison, row.adjusted_p)
        lines.append(f"{row.task:<{width}}  {a:>6.1%}  {b:>6.1%}  {said}")
    seeds = found[0].comparison.num_seeds
    if 1 in seeds:
        lines.append(
            f"{seeds[0]} training of A and {seeds[1]} of B: the intervals say nothing about how "
            "another seed of a side with one training would do"
        )
    return lines


def evaluated(name: str) -> Evaluated:
    """Return the student's scores by the name that a user gives them.

    Args:
        name: a run file or a folder of scores.

    Raises:
        UserError: it is neither, or has no scores.
    """
    if not name.endswith(".toml"):
        # The folder stands right below the root that its commits name their files from.
        root, _, folder = name.rstrip("/").rpartition("/")
        return read_evaluated(name, open_store(root or ("/" if name[0] == "/" else ".")), folder)
    if not Path(name).is_file():
        raise UserError(f"{name} is no run file and no folder of scores")
    with opened(load(name, [])) as ctx:
        return read_evaluated(name, ctx.store, ctx.folders.scores)


def read_evaluated(name: str, store: Store, folder: str) -> Evaluated:
    """Return the student's scores in a folder; of a folder with the base model's alone, those.

    Args:
        name: for messages.
        store: that holds the folder.
        folder: `scores-...` or `base-scores-...`.

    Raises:
        UserError: there are no scores in it.
    """
    setups = read_records(store, folder, Setup)
    kept = {setup.task: setup for setup in setups.values() if setup.method == ONE_PASS}
    found = list(read_records(store, folder, Score).values())
    model = STUDENT if any(score.model == STUDENT for score in found) else BASE
    scores: defaultdict[str, list[Score]] = defaultdict(list)
    for score in found:
        task = setups[score.setup].task
        if score.model == model and kept.get(task) == setups[score.setup]:
            scores[task].append(score)
    if not scores:
        raise UserError(f"{name} has no scores: run `cgd evaluate {name}` first")
    return Evaluated(name, {task: kept[task] for task in kept if task in scores}, dict(scores))


def _check_alike(task: str, runs: Sequence[Evaluated]) -> None:
    expected = asdict(runs[0].setups[task])
    for run in runs[1:]:
        for field, value in asdict(run.setups[task]).items():
            if field not in _OWN and value != expected[field]:
                raise UserError(
                    f"{task} was not evaluated alike: {field} is {expected[field]!r} in "
                    f"{runs[0].name} and {value!r} in {run.name}"
                )


def _accuracy(runs: Sequence[Verdicts]) -> float:
    shares = [sum(v) / len(v) for run in runs for v in run.values()]
    return sum(shares) / len(shares)
