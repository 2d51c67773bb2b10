"""Tasks are asked of an endpoint, graded and compared; a second run asks what is missing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.evaluation.grader_pool import GraderPool
from cgd_ray.evaluation.methods import Transcript
from cgd_ray.evaluation.problems import Problem, ProblemSet
from cgd_ray.evaluation.runner import score_answers
from cgd_ray.evaluation.scoring import Question
from cgd_ray.evaluation.setup import Setup, make_setup
from cgd_ray.evaluation.tasks import parse_task
from cgd_ray.pipeline.context import open_context
from cgd_ray.pipeline.evaluate import make_scores
from cgd_ray.records import Score
from cgd_ray.settings import EvaluateSettings, Settings
from cgd_ray.shards import read_records
from cgd_ray.teacher.completion import TeacherError
from tests.support.chat_server import chat_server

PROBLEMS = [
    {"id": f"sums/{i}", "prompt": f"What is {i} + {i}?", "answer": str(2 * i), "meta": {}}
    for i in range(1, 13)
]


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS), "utf-8")
    return path


def solve(body: dict) -> str:
    """The student is right, the base model only about 1 + 1 and what was criticised."""
    messages = body["messages"]
    if body["model"] == "tutor" or messages[-1]["content"].startswith("Check"):
        return "The sum is off."
    number = int(messages[0]["content"].split()[2])
    right = body["model"] == "student" or number == 1 or len(messages) > 1
    return f"So \\boxed{{{2 * number if right else 0}}}"


def question(problem_id: str, gold: str) -> Question:
    problem = Problem(problem_id, "?", gold, "math", "plain/v1")
    data = ProblemSet((problem,), "here", "0" * 16)
    setup = make_setup(parse_task("a.jsonl"), "one_pass", data, EvaluateSettings(), 1)
    return Question("student", problem, 0, setup)


def test_every_question_is_scored_or_left_for_later() -> None:
    right, long, busy = question("p1", "2"), question("p2", "3"), question("p3", "4")
    with GraderPool(1) as pool:
        outcomes = score_answers(
            [
                (right, Transcript("so \\boxed{2}", (), 5, 0, "stop")),
                (long, TeacherError("bad_request", "HTTP 400: too long", permanent=True)),
                (busy, TeacherError("overloaded", "HTTP 503")),
            ],
            pool,
        )
    scores = {record.key: record for record in outcomes.records if isinstance(record, Score)}
    assert scores[right.key].correct
    assert not scores[long.key].correct
    assert scores[long.key].reason == "refused: HTTP 400: too long"
    assert [(f.row_id, f.reason, f.permanent) for f in outcomes.failures] == [
        (busy.key, "overloaded", False)
    ]


def evaluated(demo: Callable[..., Settings], tmp_path: Path, url: str, *overrides: str) -> Settings:
    where = (f"run.root={tmp_path / 'root'}", f"run.work_dir={tmp_path}", "local.s3_server=false")
    return demo(*where, f"evaluate.base_url={url}", *overrides)


def test_a_task_is_asked_graded_and_compared(
    demo: Callable[..., Settings], tmp_path: Path, sums: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVAL_KEY", "a-key")
    with chat_server(solve) as (url, requests):
        tasks = f'evaluate.tasks=["{sums}:2", "gsm8k@{sums}"]'
        sampling = ("evaluate.temperature=0.5", "evaluate.api_key_env=EVAL_KEY")
        settings = evaluated(demo, tmp_path, url, tasks, *sampling)
        ctx = open_context(settings)
        found = make_scores(ctx)
        asked = len(requests)
        assert make_scores(ctx) == found
        assert len(requests) == asked == 12 * 2 * (2 + 1)
    assert (found["base"]["accuracy"], found["student"]["accuracy"]) == (1 / 12, 1)
    assert found["student"]["pass_at"] == {"1": 1, "2": 1}
    assert found["in_words"].startswith("significantly better (+91.7 points")
    assert "by Holm" in found["in_words"]
    assert [t["num_samples"] for t in found["tasks"]] == [2, 1]
    assert found["tasks"][0]["data_sha256"] == found["tasks"][1]["data_sha256"]
    assert found["tasks"][0]["drift"]["marked_share"] == 1
    assert {r["authorization"] for r in requests} == {"Bearer a-key"}
    seeds = [r["seed"] for r in requests if "What is 3" in r["messages"][0]["content"]]
    assert len(set(seeds)) == 2, "a problem's samples differ, and are the same for every model"
    scores = read_records(ctx.store, ctx.folders.scores, Score)
    setups = read_records(ctx.store, ctx.folders.scores, Setup)
    one = next(s for s in scores.values() if s.prompt_id == "sums/4" and s.model == "base")
    assert (one.question, one.gold, one.num_tokens) == ("What is 4 + 4?", "8", 2)
    assert setups[one.setup].template == "boxed/v1"
    assert setups[one.setup].temperature == 0.5


def test_what_had_no_answer_is_asked_again(
    demo: Callable[..., Settings], tmp_path: Path, sums: Path
) -> None:
    down = {"now": True}

    def sometimes(body: dict) -> str | int:
        refused = down["now"] and body["model"] == "base" and "5 + 5" in str(body["messages"])
        return 404 if refused else solve(body)

    with chat_server(sometimes) as (url, requests):
        settings = evaluated(demo, tmp_path, url, f'evaluate.tasks=["{sums}"]')
        ctx = open_context(settings)
        with pytest.raises(UserError, match=r"1 questions have no answer .*sums/5"):
            make_scores(ctx)
        down["now"] = False
        before = len(requests)
        assert make_scores(ctx)["base"]["num_prompts"] == 12
        assert len(requests) == before + 1


def test_baselines_cost_the_tokens_that_they_generate(
    demo: Callable[..., Settings], tmp_path: Path, sums: Path
) -> None:
    methods = '["one_pass", "self_refine_1", "self_refine_3", "teacher_critique"]'
    with chat_server(solve) as (url, requests):
        settings = evaluated(
            demo,
            tmp_path,
            url,
            f'evaluate.tasks=["{sums}"]',
            f"evaluate.methods={methods}",
            "local.tutor=false",
            f"teacher.base_url={url}",
            "teacher.allow_private_address=true",
        )
        found = make_scores(open_context(settings))
    by_method = {t["method"]: t for t in found["tasks"]}
    base = {
        name: (t["base"]["accuracy"], t["base"]["tokens_per_answer"])
        for name, t in by_method.items()
    }
    # An answer has 2 tokens, feedback 4.
    assert base["one_pass"][1] == 2
    assert base["self_refine_1"] == (1, 2 + 4 + 2)
    assert base["self_refine_3"] == (1, 2 + 3 * (4 + 2))
    assert base["teacher_critique"] == (1, 2 + 2)
    assert by_method["teacher_critique"]["base"]["teacher_tokens_per_answer"] == 4
    assert by_method["self_refine_1"]["template"] == "boxed/v1 + self_refine/v1"
    assert by_method["teacher_critique"]["template"] == "boxed/v1 + critique/v1 + examples/v2"
    critiques = [r for r in requests if r["model"] == "tutor"]
    assert len(critiques) == 2 * 12 - 1, "both answer 1 + 1 alike: the journal has it"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['evaluate.tasks=["gsm9k"]'], "'gsm9k' is no task (prompts.test, gsm8k, math"),
        (['evaluate.tasks=["gsm8k:16"]'], "the same answer 16 times: set evaluate.temperature"),
        (['evaluate.tasks=["gsm8k", "gsm8k"]'], "evaluate.tasks names something twice"),
        (['evaluate.tasks=["gsm8k:0"]'], "asks for no answers"),
    ],
)
def test_mistakes_are_told_at_once(
    demo: Callable[..., Settings], overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        demo(*overrides)
    assert message in str(raised.value)
