"""What is counted for Prometheus: from a stage's own state to figures."""

from collections.abc import Sequence
from dataclasses import replace

from cgd_ray.pipeline.desk import Desk
from cgd_ray.progress import LineCounts
from cgd_ray.teacher.governor import Governor, Limits, Report, Totals
from cgd_ray.training.metrics import StepMetrics
from cgd_ray.watching.catalogue import METRICS, TOTAL
from cgd_ray.watching.export import export, exported_to
from cgd_ray.watching.figures import (
    Figure,
    GenerationFigures,
    LineFigures,
    StageRows,
    TrainingFigures,
)

STEP = StepMetrics(1, 2.5, 1e-4, 0.7, 30, 100, 2.0, 0.1, 0.5, 3, None, 1.5)


def values(figures: Sequence[Figure]) -> dict[tuple[str, ...], float]:
    """Return figures by name and labels, the run's apart."""
    assert all(f.labels["run"] == "r" for f in figures)
    return {(f.name, *(v for k, v in f.labels.items() if k != "run")): f.value for f in figures}


def test_names_follow_the_conventions_and_each_is_there_once() -> None:
    assert len({m.name for m in METRICS}) == len(METRICS)
    for m in METRICS:
        assert m.name.startswith("cgd_")
        assert m.name.endswith(TOTAL) == (m.kind == "counter"), m.name
        assert not m.name.endswith(("_ms", "_gib", "_percent", "_minutes")), "base units only"
        assert m.help
        assert not m.help.endswith(".")


def test_generation_is_counted_from_the_desk() -> None:
    desk = Desk(Governor(Limits(already_spent_usd=1.0)))
    stages = {"drafts": StageRows(20, 4), "teacher": StageRows(20, 3)}
    figures = GenerationFigures("r", stages, waiting=1)
    first = values(figures.of(desk.status()))
    assert first[("cgd_stage_rows", "drafts")] == 4
    assert first[("cgd_teacher_rows_waiting",)] == 1
    assert not any(name[0].endswith(TOTAL) for name in first), "a counter that stands still"

    desk.count("drafts", 10, 2, 500, 80)
    desk.count("teacher", 6, 1)
    totals = Totals(
        num_calls=15,
        num_answers=12,
        num_retries=3,
        num_rate_limited=2,
        num_input_tokens=1000,
        num_cached_tokens=400,
        num_output_tokens=90,
        latency_s=6.0,
        usd=0.25,
    )
    desk.exchange(Report("one", 4, 0, 0.0, (), totals))
    second = values(figures.of(desk.status()))
    assert second[("cgd_rows_total", "drafts", "ok")] == 10
    assert second[("cgd_rows_total", "drafts", "failed")] == 2
    assert second[("cgd_rows_total", "teacher", "ok")] == 6
    assert second[("cgd_stage_rows", "drafts")] == 16
    assert second[("cgd_stage_rows_expected", "teacher")] == 18, "two drafts failed"
    assert second[("cgd_sampler_tokens_total", "generated")] == 80
    assert second[("cgd_teacher_rows_waiting",)] == 1 + 10 - 7
    calls = {s: second[("cgd_teacher_calls_total", s)] for s in ("ok", "rate_limited", "error")}
    assert calls == {"ok": 12, "rate_limited": 2, "error": 1}
    kinds = ("prompt", "cached", "generated")
    assert [second[("cgd_teacher_tokens_total", k)] for k in kinds] == [600, 400, 90]
    assert second[("cgd_teacher_cost_dollars_total",)] == 0.25
    assert second[("cgd_teacher_spent_dollars",)] == 1.25
    assert second[("cgd_teacher_calls_in_flight",)] == 4

    desk.count("teacher", 5, 0)
    third = values(figures.of(desk.status()))
    assert third[("cgd_rows_total", "teacher", "ok")] == 5, "counters grow by the difference"
    assert ("cgd_rows_total", "drafts", "ok") not in third


def test_a_stage_without_a_teacher_says_nothing_of_one() -> None:
    desk = Desk(Governor(Limits()))
    desk.count("drafts", 1, 0, 5, 5)
    found = values(GenerationFigures("r", {"drafts": StageRows(2, 0)}, None).of(desk.status()))
    assert not any(name[0].startswith("cgd_teacher") for name in found)


def test_training_counts_the_steps_of_this_attempt() -> None:
    figures = TrainingFigures("r", expected=65, before=2)
    assert values(figures.of([])) == {("cgd_training_steps_expected",): 65}
    steps = [replace(STEP, step=n) for n in (1, 2, 3)]
    found = values(figures.of(steps))
    assert found[("cgd_training_steps_total",)] == 1
    assert found[("cgd_training_tokens_total", "target")] == 30
    assert found[("cgd_training_tokens_total", "context")] == 70
    assert found[("cgd_training_data_wait_seconds_total",)] == 0.5
    assert found[("cgd_training_step",)] == 3
    assert found[("cgd_training_loss_nats",)] == 2.5
    assert found[("cgd_training_peak_memory_bytes",)] == 1.5 * 2**30
    assert ("cgd_training_mfu_ratio",) not in found, "the device's peak is not known"
    steps.append(replace(STEP, step=4, mfu=0.4))
    later = values(figures.of(steps))
    assert later[("cgd_training_steps_total",)] == 1
    assert later[("cgd_training_mfu_ratio",)] == 0.4


def test_lines_of_the_driver_are_counted_and_those_of_generation_are_not() -> None:
    figures = LineFigures("r")
    found = values(figures.of(LineCounts("curation", 9, 5, 2, "rejected", 0)))
    assert found[("cgd_rows_total", "curation", "ok")] == 5
    assert found[("cgd_rows_total", "curation", "rejected")] == 2
    assert found[("cgd_stage_rows_expected", "curation")] == 9
    assert figures.of(LineCounts("generation", 9, 5, 2, "failed", 0)) == []
    again = values(figures.of(LineCounts("curation", 9, 3, 0, "rejected", 0)))
    assert again[("cgd_rows_total", "curation", "ok")] == 3, "a second round begins anew"


def test_figures_go_nowhere_without_a_taker() -> None:
    taken: list[Figure] = []
    figure = Figure("cgd_training_step", 1, {"run": "r"})
    export([figure])
    with exported_to(taken.extend):
        export([figure])
    export([figure])
    assert taken == [figure]
