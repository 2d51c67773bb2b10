"""Studies: arms, matched budgets, cells, contrasts, the table and the page."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cgd_ray.errors import UserError
from cgd_ray.evaluation.statistics import Verdicts
from cgd_ray.settings import load
from cgd_ray.study.arms import READY_MADE, chosen_arms
from cgd_ray.study.budgets import (
    ArmData,
    TeacherCost,
    arm_cost,
    generation_flops,
    matched_chains,
    matched_steps,
    teacher_calls,
    training_flops,
)
from cgd_ray.study.cells import Cell, Reference, cells_of, command, step_overrides
from cgd_ray.study.command import main
from cgd_ray.study.contrasts import contrasts, estimate
from cgd_ray.study.figure import figure
from cgd_ray.study.page import findings, render_page
from cgd_ray.study.results import (
    ArmResult,
    Costs,
    CurvePoint,
    FailedCell,
    StudyResult,
    TaskResult,
    from_json,
    to_json,
)
from cgd_ray.study.settings import load_study
from cgd_ray.study.table import markdown, table, verdict

REPO = Path(__file__).resolve().parents[2]
STUDIES = sorted((REPO / "jobs" / "studies").glob("*.toml"))
CGD = ArmData(400, 400, 50, 80_000, 120_000.0, 1.2)
SFT = ArmData(400, 400, 25, 32_000, 60_000.0, 0.8)


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_study_file_is_accepted(path, capsys):
    assert main([str(path), "--dry-run"]) == 0
    assert "trainings at most" in capsys.readouterr().err


@pytest.mark.parametrize("arm", READY_MADE.values(), ids=lambda arm: arm.name)
def test_every_ready_made_arm_is_a_run(arm):
    settings = load(REPO / "jobs/runs/demo.toml", ["examples.prompt_only_share=0", *arm.overrides])
    if arm.name in ("sft", "distilled_sft", "cft", "cgd", "cgd_no_critique", "cgd_no_draft"):
        assert settings.examples.objective == arm.name


def test_arms_are_listed_base_first_and_may_be_the_studys_own():
    arms = chosen_arms(["cgd", "mine", "base"], {"mine": ["train.learning_rate=1e-3"]}, "cgd")
    assert [arm.name for arm in arms] == ["base", "cgd", "mine"]
    assert arms[2].overrides == ("train.learning_rate=1e-3",)
    assert not arms[0].trained


@pytest.mark.parametrize(
    ("names", "reference", "said"),
    [
        (["cgd", "cdg"], "cgd", "arms: cdg is not known"),
        (["cgd", "cgd"], "cgd", "names one twice"),
        (["base", "cft"], "base", "reference=base must be one of the trained arms"),
        (["base", "cft"], "cgd", "reference=cgd must be one of the trained arms"),
    ],
)
def test_arms_that_make_no_sense_are_refused(names, reference, said):
    with pytest.raises(UserError, match=said):
        chosen_arms(names, {}, reference)


WHOLE = "name = 'x'\nrun = 'r.toml'\narms = ['base', 'cgd']\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{WHOLE}seedz = [1]", "unknown setting seedz; did you mean seeds"),
        (f"{WHOLE}match = ['tokens']", "match.0='tokens'"),
        (f"{WHOLE}seeds = [1, 1]", "seeds names something twice"),
        (WHOLE.partition("\n")[2], "name is required and not set"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_study_file_that_is_wrong_is_one_line(text, said, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=said.replace("[", r"\[")) as error:
        load_study(path)
    assert "\n" not in str(error.value)


def test_the_run_file_is_relative_to_the_study(tmp_path):
    path = tmp_path / "studies" / "one.toml"
    path.parent.mkdir()
    path.write_text("name = 'x'\nrun = '../runs/demo.toml'\narms = ['base', 'cgd']")
    assert load_study(path)[1] == tmp_path / "runs" / "demo.toml"


def test_examples_are_matched_whatever_their_packing():
    assert matched_steps("examples", SFT, CGD, 50, 1) == 25
    assert matched_steps("examples", CGD, CGD, 100, 1) == 100
    half = replace(CGD, num_examples=800, num_batches=100)
    assert matched_steps("examples", half, CGD, 50, 1) == 50


def test_steps_and_tokens_are_matched():
    assert matched_steps("steps", SFT, CGD, 50, 1) == 50
    # 80,000 tokens are two and a half passes of 25 steps.
    assert matched_steps("train_tokens", SFT, CGD, 50, 1) == 62
    assert matched_steps("train_tokens", SFT, CGD, 100, 1) == 125


def test_the_teacher_is_paid_the_same_by_fewer_chains():
    free = ArmData(400, 400, 25, 32_000, 0.0, 0.0)
    arms = {"cgd": CGD, "sft": SFT, "free": free}
    assert matched_chains("teacher_tokens", arms) == {"cgd": 200, "sft": 400, "free": 400}
    assert matched_chains("usd", arms) == {"cgd": 266, "sft": 400, "free": 400}
    with pytest.raises(UserError, match="match=usd needs the teacher's price"):
        matched_chains("usd", {"cgd": replace(CGD, teacher_usd=None)})


def test_an_arm_pays_for_the_calls_that_it_needs():
    costs = {"critique": TeacherCost(1000, 0.1), "refinement": TeacherCost(3000, None)}
    assert arm_cost(teacher_calls("cft", 0), costs, 0.5) == (500, 0.05)
    assert arm_cost(teacher_calls("cgd", 0), costs, 1.0) == (4000, None)
    assert arm_cost(teacher_calls("sft", 0), costs, 1.0) == (0, 0.0)
    assert teacher_calls("distilled_sft", 0) == ("refinement",)
    assert teacher_calls("cft", 0.5) == ("critique", "refinement")


def test_flops_are_those_of_the_literature():
    assert training_flops(8e9, 1_000_000) == 4.8e16
    assert generation_flops(8e9, 1_000_000) == 1.6e16


def test_the_reference_is_trained_as_its_run_says_and_the_others_for_so_long():
    reference = Reference("cgd", CGD, 50, 1)
    assert step_overrides("train_tokens", READY_MADE["cgd"], CGD, reference) == ()
    given = step_overrides("train_tokens", READY_MADE["distilled_sft"], SFT, reference)
    assert given == ("train.num_epochs=3", "train.max_steps=62")


def test_cells_come_seed_by_seed():
    cells = cells_of("examples", {"cft": ("a=1",), "cgd": ()}, [1, 2])
    assert [(c.arm, c.seed) for c in cells] == [("cft", 1), ("cgd", 1), ("cft", 2), ("cgd", 2)]
    assert cells[0].overrides == ("a=1", "train.seed=1")
    assert cells[0].label == "cft, examples matched, seed 1"


def test_a_cells_run_has_a_name_that_runs_may_have():
    cell = Cell("cgd", "train_tokens", 3, ())
    assert cell.run_name("a study") == "a-study-cgd-train_tokens-3"
    assert len(cell.run_name("x" * 200)) <= 64


def test_commands_can_be_pasted():
    assert (
        command("run", "r.toml", ["a.b=['x', 'y']"])
        == """cgd run r.toml 'a.b=['"'"'x'"'"', '"'"'y'"'"']'"""
    )


def verdicts(right: int, total: int = 100) -> Verdicts:
    return {f"p{i}": [i < right] for i in range(total)}


def test_an_arms_interval_is_over_prompts_and_trainings():
    one, three = estimate([verdicts(40)]), estimate([verdicts(30), verdicts(40), verdicts(50)])
    assert one.mean == three.mean == pytest.approx(0.4)
    assert one.low < 0.4 < one.high
    assert three.high - three.low > one.high - one.low  # the trainings disagree
    assert estimate([verdicts(0), verdicts(1)]).low >= 0


def test_contrasts_are_second_less_first_and_adjusted():
    first = {"a": [verdicts(40)], "b": [verdicts(69)]}
    second = {"a": [verdicts(70)], "b": [verdicts(70)]}
    found = contrasts(first, second, {"a": "cgd compare 1", "b": "cgd compare 2"})
    assert found["a"].mean == pytest.approx(0.3)
    assert (found["a"].wins, found["a"].losses) == (30, 0)
    assert found["a"].p_holm == pytest.approx(2 * found["a"].p)
    assert verdict(found["a"]) == "wins"
    assert verdict(found["b"]) == "ties"
    assert verdict(contrasts(second, first, {"a": "", "b": ""})["a"]) == "loses"


def contrasted(first: dict[str, list[Verdicts]], second: dict[str, list[Verdicts]]) -> dict:
    return contrasts(first, second, {name: f"cgd compare {name}" for name in first})


def result(**changes) -> StudyResult:
    costs = Costs(400, 400, 50, 80_000, 20_000, 120_000, None, 1e12, 6.5e13, 90, 120)
    of = {
        name: [verdicts(n), verdicts(n + 2)] for name, n in (("base", 10), ("cft", 20), ("cgd", 60))
    }
    over = contrasted(dict.fromkeys(("cft", "cgd"), of["base"]), {n: of[n] for n in ("cft", "cgd")})
    under = contrasted(
        {n: of[n] for n in ("base", "cft")}, dict.fromkeys(("base", "cft"), of["cgd"])
    )

    def task(name: str) -> TaskResult:
        shares = (0.1, 0.12)
        accuracy = estimate(of[name])
        return TaskResult(
            "prompts.test",
            "accuracy",
            100,
            accuracy,
            shares,
            31,
            0,
            over.get(name),
            under.get(name),
        )

    curve = (CurvePoint(1, 1600, 2.0), CurvePoint(2, 3200, 1.0))
    base = ArmResult("base", "examples", "untrained", (), (task("base"),), None, (), ())
    trained = [
        ArmResult(name, "examples", what, (1, 2), (task(name),), costs, curve, (f"cgd run {name}",))
        for name, what in (("cft", "<b>bold</b>"), ("cgd", "the method"))
    ]
    made = StudyResult(
        study="sums",
        date="2026-11-23 09:00 UTC",
        command="cgd study s.toml",
        hardware="a machine",
        versions={"ray": "2.60"},
        student="student",
        teacher="tutor",
        prompts="reasoning-gym:chain_sum",
        reference="cgd",
        num_chains=400,
        draft_accuracy=0.06,
        num_cells=4,
        num_finished=3,
        arms=(base, *trained),
        failed=(FailedCell("cft, seed 3", "cgd train: no <memory>", "cgd run r.toml"),),
    )
    return replace(made, **changes)


def test_the_result_travels_as_json():
    assert from_json(to_json(result())) == result()


RESULTS = sorted((REPO / "benchmarks" / "results").glob("study-*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_documents_quote_the_committed_results(path):
    committed = from_json(json.loads(path.read_text(encoding="utf-8"))["study"])
    assert committed.num_finished == committed.num_cells
    assert markdown(committed) in (REPO / "README.md").read_text(encoding="utf-8")
    drawn = REPO / "docs" / f"study-{committed.study}.svg"
    assert drawn.read_text(encoding="utf-8") == figure(committed)


def test_the_table_fits_a_terminal_and_says_who_wins():
    text = table(result())
    assert "prompts.test, accuracy" in text
    assert "wins" in text
    assert "failed: cft, seed 3: cgd train: no <memory>" in text
    assert max(map(len, text.splitlines())) <= 130


def test_the_page_is_escaped_whole_and_closed_to_the_world():
    page = render_page(result())
    assert "<b>bold</b>" not in page
    assert "no <memory>" not in page
    assert "default-src 'none'" in page
    assert page.count("<section") == page.count("</section>") == 3
    assert "cgd run cft" in page
    assert "cgd compare cft" in page
    assert findings(result()) == ["With the same examples, cgd beats base and cft."]


def test_the_figure_is_an_svg_with_a_panel_a_match():
    both = replace(
        result(), arms=(*result().arms, *(replace(a, match="usd") for a in result().arms))
    )
    for made, panels in ((result(), 1), (both, 2)):
        tree = ElementTree.fromstring(figure(made))
        circles = [e for e in tree.iter() if e.tag.endswith("circle")]
        assert len(circles) == 3 * panels
        assert len(re.findall(r"\.arm-2\{fill:#1f5fa8\}", figure(made))) == panels, "cgd's"


def test_a_match_without_the_base_still_has_a_page():
    arms = tuple(a for a in result().arms if a.arm != "base")
    assert "cft" in render_page(result(arms=arms))
