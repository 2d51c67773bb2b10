"""A study's plan and its results from stored artefacts, without training anything."""

import random
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from cgd_ray.cli import main
from cgd_ray.errors import UserError
from cgd_ray.evaluation.setup import Setup
from cgd_ray.pipeline import study
from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.pipeline.prompts import split_folder
from cgd_ray.pipeline.study import collect, write
from cgd_ray.pipeline.study_cells import Launch, Outcome, run_cells
from cgd_ray.pipeline.study_plan import Study, plan_cells, share
from cgd_ray.plan import student_shape
from cgd_ray.records import Score
from cgd_ray.settings import load
from cgd_ray.shards import commit_shard, mark_complete
from cgd_ray.study.arms import chosen_arms
from cgd_ray.study.budgets import ArmData
from cgd_ray.study.cells import Cell
from cgd_ray.study.results import Contrast, StudyResult
from cgd_ray.study.settings import StudySettings, load_study
from cgd_ray.training.metrics import MetricsWriter, StepMetrics
from tests.support.tiny_student import tiny_student
from tests.support.tutor_sample import CHAINS

RUN = """
[run]
name = "studied"
root = "{folder}/store"
work_dir = "{folder}/work"
[prompts]
train = "reasoning-gym:chain_sum"
num_train = 50
num_test = 20
[student]
model = "{student}"
[teacher]
base_url = "http://localhost:1/v1"
model = "teacher"
usd_per_million_input_tokens = 1.0
usd_per_million_output_tokens = 10.0
[packing]
sequence_length = 2048
max_documents = 4
"""
ARMS = ("base", "distilled_sft", "cft", "cgd")
BASE_RIGHT, RIGHT = 2, {"distilled_sft": 8, "cft": 1, "cgd": 14}  # of 20


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_student(tmp_path_factory.mktemp("study") / "tiny")


@pytest.fixture
def folder(student: Path, tmp_path: Path) -> Path:
    (tmp_path / "run.toml").write_text(RUN.format(folder=tmp_path, student=student))
    return tmp_path


def study_of(folder: Path, *matches: str) -> Study:
    """Return a study whose chains are made: the hand-checked sample."""
    run_file = str(folder / "run.toml")
    ctx = open_context(load(run_file))
    f = ctx.folders
    commit_shard(ctx.store, split_folder(f.prompts, "train"), [c.prompt for c in CHAINS])
    commit_shard(ctx.store, f.drafts, [c.draft for c in CHAINS])
    commit_shard(ctx.store, f.refinements, [t for c in CHAINS for t in (c.critique, c.refinement)])
    mark_complete(ctx.store, f.prompts, {"train": 50, "test": 20, "seconds": 1.0})
    made = {"made": 50, "failed": {}, "tokens": 700, "seconds": 10.0}
    mark_complete(ctx.store, f.drafts, made)
    taught = {"critiqued": 50, "refined": 50, "failed": {}, "seconds": 0.0}
    mark_complete(ctx.store, f.refinements, taught)
    settings = StudySettings(name="small", run=run_file, arms=ARMS, seeds=(1, 2), match=matches)  # pyright: ignore
    arms = chosen_arms(settings.arms, {}, settings.reference)
    return Study(settings, run_file, (), arms, "cgd study s.toml", ctx)


def train_and_evaluate(study: Study, cells: Sequence[tuple[Cell, ArmData]]) -> None:
    """Store what trained and evaluated cells leave behind."""
    for cell, _ in cells:
        ctx = study.context(cell.overrides)
        steps = ctx.settings.train.max_steps or 13
        writer = MetricsWriter(ctx.store, ctx.folders.checkpoint)
        for step in range(1, steps + 1):
            writer.add(StepMetrics(step, 1 / step, 1e-4, 1.0, 20, 100, 0.5))
        writer.flush()
        setup = Setup(
            id="s",
            task="prompts.test",
            method="one_pass",
            metric="accuracy",
            source="here",
            data_sha256="0",
            num_problems=20,
            num_samples=1,
            template="plain/v1",
            grader="grading/v1",
            temperature=0.0,
            top_p=1.0,
            max_tokens=64,
            seed=0,
        )
        order = random.Random(cell.seed).sample(range(20), 20)
        right = {"base": BASE_RIGHT, "student": RIGHT[cell.arm]}
        scores = [
            Score(model, f"p{i}", "12", None, place < right[model], "", 5, setup="s")
            for model in right
            for place, i in enumerate(order if model == "student" else range(20))
        ]
        commit_shard(ctx.store, ctx.folders.scores, [setup, *scores])
        base = [score for score in scores if score.model == "base"]
        commit_shard(ctx.store, ctx.folders.base_scores, [setup, *base])
        mark_complete(ctx.store, ctx.folders.scores, {"tasks": []})


def test_every_arm_is_sized_to_the_reference(folder: Path) -> None:
    made = study_of(folder, "examples", "train_tokens", "teacher_tokens", "usd")
    datas = share(made)
    cells = plan_cells(made, datas)
    assert len(cells) == 4 * 3 * 2
    assert set(datas) == {"distilled_sft", "cft", "cgd"}
    kept = datas["cgd"].num_chains
    assert all(data.num_chains == data.num_examples == kept for data in datas.values())
    assert datas["cgd"].num_tokens > datas["distilled_sft"].num_tokens
    assert datas["cgd"].teacher_tokens == pytest.approx(
        datas["cft"].teacher_tokens + datas["distilled_sft"].teacher_tokens
    )
    by = {(c.match, c.arm): (c.overrides, data) for c, data in cells if c.seed == 1}
    assert by["examples", "cgd"][0] == ("examples.objective=cgd", "train.seed=1")
    more, same = (by[match, "distilled_sft"][0] for match in ("train_tokens", "examples"))
    steps = [load(made.run_file, o).train.max_steps for o in (more, same)]
    assert steps[0] > steps[1] == -(-kept // 4)
    for match in ("teacher_tokens", "usd"):
        spent = [by[match, arm][1].spent(match) for arm in ("distilled_sft", "cft", "cgd")]
        assert max(spent) <= 1.1 * min(spent), "nobody pays the teacher more"
        assert by[match, "cgd"][1].num_chains < kept


def test_what_is_stored_becomes_the_page(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = study_of(folder, "examples", "train_tokens")
    cells = plan_cells(made, share(made))
    train_and_evaluate(made, cells)
    result = collect(made, cells, ())
    assert (result.num_cells, result.num_finished, result.num_chains) == (12, 12, 50)
    arms = {arm.arm: arm for arm in result.of("examples")}
    assert list(arms) == list(ARMS)
    accuracy = {name: arm.tasks[0].accuracy.mean for name, arm in arms.items()}
    assert accuracy == pytest.approx({"base": 0.1, "distilled_sft": 0.4, "cft": 0.05, "cgd": 0.7})
    assert arms["base"].tasks[0].over_base is None
    assert arms["cgd"].tasks[0].under_reference is None
    assert arms["cgd"].tasks[0].over_base.mean == pytest.approx(0.6)
    assert arms["cft"].tasks[0].under_reference.mean == pytest.approx(0.65)
    costs = arms["cgd"].costs
    size = student_shape(str(student)).num_parameters
    assert costs.training_flops == 6 * size * costs.train_tokens
    assert costs.drafting_worker_s == pytest.approx(10.0 * costs.num_chains / 50)
    assert arms["distilled_sft"].costs.drafting_flops == 0
    assert costs.usd > arms["distilled_sft"].costs.usd > 0
    assert [point.loss for point in arms["cgd"].curve[:2]] == [1.0, 0.5]
    write(made, result)
    assert "cgd less it" in capsys.readouterr().out
    num_compared = 0
    for contrast in contrasts_of(result):
        num_compared += 1
        assert main(shlex.split(contrast.command)[1:]) == 0
        figures = f"{contrast.mean * 100:+.1f} points, 95 % interval {contrast.low * 100:+.1f} to"
        assert figures in capsys.readouterr().out, contrast.command
    assert num_compared == 2 * 2 * 3, "matches x (over base, under cgd) x arms"
    assert {path.name for path in made.folder.iterdir()} == {
        "study.html",
        "study.json",
        "study.svg",
    }


def contrasts_of(result: StudyResult) -> Iterator[Contrast]:
    for arm in result.arms:
        for task in arm.tasks:
            yield from filter(None, (task.over_base, task.under_reference))


def test_cells_that_are_missing_are_left_out(folder: Path) -> None:
    made = study_of(folder, "steps")
    cells = plan_cells(made, share(made))
    with pytest.raises(UserError, match="no cell of the study is finished"):
        collect(made, [(c, d) for c, d in cells if c.arm == "cft"], ())
    cgd = [(c, d) for c, d in cells if c.arm == "cgd"]
    train_and_evaluate(made, cgd)
    result = collect(made, cells, ())
    assert [arm.arm for arm in result.arms] == ["base", "cgd"]
    assert result.num_finished == 2


def launch(folder: Path, run_file: str) -> Launch:
    return Launch(run_file, (), {}, folder / "logs")


def test_a_cell_that_fails_is_a_line_and_the_others_go_on(folder: Path) -> None:
    bad = Cell("cgd", "steps", 1, ("train.learning_rate=-1",))
    worse = Cell("cft", "steps", 1, ("trian.seed=1",))
    ended: list[Outcome] = []
    begun: list[str] = []
    where = launch(folder, str(folder / "run.toml"))
    run_cells([bad, worse], where, "small", 2, lambda c, _: begun.append(c.arm), ended.append)
    assert sorted(begun) == ["cft", "cgd"]
    said = {outcome.cell.arm: outcome.failure or "" for outcome in ended}
    assert "train.learning_rate=-1" in said["cgd"]
    assert "unknown setting trian" in said["cft"]
    assert not any("\n" in line for line in said.values())


def test_all_settings_of_a_context_are_the_cells(folder: Path) -> None:
    made = study_of(folder, "steps")
    ctx: RunContext = made.context(["train.seed=7"])
    assert ctx.settings.train.seed == 7
    assert asdict(ctx.folders)["drafts"] == asdict(made.ctx.folders)["drafts"]


def test_a_gpu_makes_the_study_larger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        "name = 'x'\nrun = 'r.toml'\narms = ['base', 'cgd']\nseeds = [1]\n"
        "[scale]\noverrides = ['prompts.num_train=8192']\nseeds = [1, 2]\n"
    )
    settings, _ = load_study(path)
    larger = (1, 2), ("a.b=1", "prompts.num_train=8192")
    for gpu, (seeds, overrides) in ((False, ((1,), ("a.b=1",))), (True, larger)):
        monkeypatch.setattr(study, "use_gpu", lambda _, gpu=gpu: gpu)
        scaled, given = study.scaled(settings, ("a.b=1",))
        assert (scaled.seeds, given) == (seeds, overrides)
