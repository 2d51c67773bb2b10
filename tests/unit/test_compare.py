"""`cgd compare`: two sides of one or several trainings, task by task."""

from dataclasses import replace
from pathlib import Path

import pytest

from cgd_ray.cli import main
from cgd_ray.errors import UserError
from cgd_ray.evaluation.problems import Problem, ProblemSet
from cgd_ray.evaluation.setup import Setup, make_setup
from cgd_ray.evaluation.tasks import parse_task
from cgd_ray.pipeline.compare import Evaluated, compare_sides, comparison_lines
from cgd_ray.records import Score
from cgd_ray.settings import EvaluateSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import open_store

PROBLEM = Problem("p", "?", "1", "math", "boxed/v1")


def setup_of(task: str, **changes: object) -> Setup:
    data = ProblemSet((PROBLEM,), "here", "0" * 16)
    made = make_setup(parse_task(task), "one_pass", data, EvaluateSettings(), 1)
    return replace(made, **changes)


def scores_of(setup: Setup, right: int, total: int = 40, model: str = "student") -> list[Score]:
    return [
        Score(model, f"p{i}", "", None, i < right, "", 3, task=setup.task, setup=setup.id)
        for i in range(total)
    ]


def evaluated(name: str, rights: dict[str, int], **changes: object) -> Evaluated:
    setups = {task: setup_of(task, **changes) for task in rights}
    return Evaluated(name, setups, {t: scores_of(setups[t], n) for t, n in rights.items()})


def test_tasks_are_compared_and_p_counts_them() -> None:
    first = evaluated("a", {"gsm8k": 10, "math": 20, "bbh": 5})
    second = evaluated("b", {"math": 25, "gsm8k": 30})
    found = compare_sides([first], [second])
    assert [(row.task, row.accuracies) for row in found] == [
        ("gsm8k", (0.25, 0.75)),
        ("math", (0.5, 0.625)),
    ]
    assert found[1].comparison.p == pytest.approx(2 / 2**5)
    assert found[1].adjusted_p == found[1].comparison.p
    assert found[0].adjusted_p == pytest.approx(2 * 2 / 2**20)
    lines = comparison_lines(found, "a", "b")
    assert lines[3].split()[:3] == ["gsm8k", "25.0%", "75.0%"]
    assert "significantly better (+50.0 points" in lines[3]
    assert "not significant (+12.5 points" in lines[4]
    assert lines[-1].startswith("1 training of A and 1 of B: the intervals say nothing about")


def test_trainings_of_a_side_are_the_outer_level() -> None:
    first = [evaluated(f"a{n}", {"gsm8k": n}) for n in (8, 12, 10)]
    second = [evaluated(f"b{n}", {"gsm8k": n}, seed=n) for n in (20, 28, 24)]
    (row,) = compare_sides(first, second)
    assert row.comparison.num_seeds == (3, 3)
    assert row.comparison.mean == pytest.approx(14 / 40)
    assert row.adjusted_p is None
    assert not comparison_lines([row], "a", "b")[-1].startswith("3 training")


def test_only_what_was_asked_alike_is_compared() -> None:
    first, other = evaluated("a", {"gsm8k": 3}), evaluated("b", {"gsm8k": 3}, temperature=0.5)
    with pytest.raises(UserError, match=r"alike: temperature is 0.0 in a and 0.5 in b"):
        compare_sides([first], [other])
    with pytest.raises(UserError, match=r"no task .* \(a: gsm8k; c: math\)"):
        compare_sides([first], [evaluated("c", {"math": 3})])


def test_folders_of_scores_are_compared_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path))
    for name, right in (("scores-a", 10), ("scores-b", 30)):
        setup = setup_of("gsm8k")
        rows = scores_of(setup, right) + scores_of(setup, 1, model="base")
        commit_shard(store, name, [setup, *rows])
    assert main(["compare", f"{tmp_path}/scores-a", f"{tmp_path}/scores-b"]) == 0
    out = capsys.readouterr()
    assert "25.0%   75.0%  significantly better" in out.out + out.err
    assert main(["compare", f"{tmp_path}/scores-a", f"{tmp_path}/empty"]) == 2
    assert "has no scores: run `cgd evaluate" in capsys.readouterr().err
