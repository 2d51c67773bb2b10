"""Names of tasks become problems: how each is asked, and what grades it."""

import json
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.evaluation.loading import load_problems, task_versions
from cgd_ray.evaluation.problems import as_multiple_choice, make_problems, sample_problems
from cgd_ray.evaluation.tasks import TASKS, Hub, parse_task
from cgd_ray.evaluation.templates import TEMPLATES, build_problem_messages
from cgd_ray.prompts.rows import Row

SHARED = Path(__file__).parents[3] / "shared/datasets"
NAMED = [
    *("gsm8k", "math", "math_500", "amc23", "aime24", "aime25", "minerva_math", "olympiadbench"),
    *("theoremqa", "gpqa_diamond", "mmlu_pro", "bbh", "truthfulqa", "musr", "ifeval", "humaneval"),
]


def written(folder: Path, name: str, *rows: dict, file: str = "test.jsonl") -> Path:
    path = folder / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def row(number: int = 0, **values: object) -> dict:
    return {"id": f"x/{number}", "prompt": "1 + 1?", "answer": "2", "meta": {}, **values}


def kinds(name: str, folder: Path, *rows: dict) -> list[str]:
    path = written(folder, name, *rows)
    found = load_problems(parse_task(str(path)), None, None, 1)
    return [problem.kind for problem in found.problems]


def test_every_task_that_people_name_is_there() -> None:
    assert set(NAMED) == set(TASKS)
    assert all(task.template in TEMPLATES for task in TASKS.values())


@pytest.mark.parametrize(
    ("text", "task", "location", "num_samples"),
    [
        ("gsm8k", "gsm8k", None, 1),
        ("gsm8k:16", "gsm8k", None, 16),
        ("gsm8k@held/out.jsonl:4", "gsm8k", "held/out.jsonl", 4),
        ("data/math-500-heldout/test.jsonl", "math_500", "data/math-500-heldout/test.jsonl", 1),
        ("out.jsonl:2", "file", "out.jsonl", 2),
        ("s3://b/theoremqa/test.jsonl", "theoremqa", "s3://b/theoremqa/test.jsonl", 1),
        ("reasoning-gym:chain_sum", "file", "reasoning-gym:chain_sum", 1),
        ("reasoning-gym:chain_sum:3", "file", "reasoning-gym:chain_sum", 3),
        ("hf:openai/gsm8k?config=main", "file", "hf:openai/gsm8k?config=main", 1),
        ("prompts.test", "prompts.test", None, 1),
    ],
)
def test_what_an_entry_names(text: str, task: str, location: str | None, num_samples: int) -> None:
    spec = parse_task(text)
    assert (spec.task.name, spec.location, spec.num_samples) == (task, location, num_samples)


def test_a_named_task_is_found_in_the_folder_of_data(tmp_path: Path) -> None:
    written(tmp_path, "math-500-dev", row(1))
    dev = load_problems(parse_task("math_500"), str(tmp_path), None, 1)
    written(tmp_path, "math-500-heldout", row(2), file="test.jsonl")
    both = load_problems(parse_task("math_500"), str(tmp_path), None, 1)
    assert [len(found.problems) for found in (dev, both)] == [1, 2]
    assert dev.sha256 != both.sha256
    with pytest.raises(UserError, match=r"evaluate.data_dir=.* holds none of gsm8k/test.jsonl"):
        load_problems(parse_task("gsm8k"), str(tmp_path), None, 1)
    with pytest.raises(UserError, match=r"task bbh is read from files: set evaluate.data_dir"):
        load_problems(parse_task("bbh"), None, None, 1)


def test_the_hash_is_of_the_problems_and_not_of_their_place(tmp_path: Path) -> None:
    rows = [row(1), row(2, answer="3")]
    places = (written(tmp_path, "a/gsm8k", *rows), written(tmp_path, "b/gsm8k", *rows[::-1]))
    other = written(tmp_path, "c/gsm8k", row(1), row(2, answer="4"))
    hashes = [load_problems(parse_task(str(p)), None, None, 1).sha256 for p in (*places, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_version_of_a_task_is_that_of_its_files(tmp_path: Path) -> None:
    path = written(tmp_path, "gsm8k", row(1))
    tasks = ("gsm8k:4", str(path), "prompts.test", "reasoning-gym:chain_sum", "bbh", "gone.jsonl")
    before = task_versions(tasks, str(tmp_path))
    assert len(before) == 2
    written(tmp_path, "gsm8k", row(1), row(2))
    after = task_versions(tasks, str(tmp_path))
    assert before[0] != after[0]
    assert task_versions(("gsm8k",), None) == ()


def test_the_gold_answer_says_how_a_file_without_a_name_is_graded(tmp_path: Path) -> None:
    golds = ["42", "(B)", "C", "True", "no", "\\frac{1}{2}", "1,234.5"]
    rows = [row(i, answer=gold) for i, gold in enumerate(golds)]
    assert kinds("mine", tmp_path, *rows) == [
        *("math", "choice", "choice", "bool", "bool", "math", "math"),
    ]


def test_every_row_of_a_mixed_task_has_its_own_grader(tmp_path: Path) -> None:
    golds = ["(A)", "False", "no", "valid", "24", "] ]", "sioux thorn"]
    rows = [row(i, answer=gold) for i, gold in enumerate(golds)]
    assert kinds("bbh", tmp_path, *rows) == [
        *("choice", "bool", "bool", "exact", "math", "exact", "exact"),
    ]
    types = [("float", "1.5"), ("integer", "3"), ("bool", "True"), ("option", "(a)")]
    rows = [
        row(i, answer=gold, meta={"answer_type": name, "needs_picture": False})
        for i, (name, gold) in enumerate(types)
    ]
    rows.append(row(9, meta={"answer_type": "integer", "needs_picture": True}))
    path = written(tmp_path, "theoremqa", *rows)
    found = load_problems(parse_task(str(path)), None, None, 1)
    assert [(p.kind, p.relative_tolerance) for p in found.problems] == [
        *(("math", 0.04), ("math", 0.0), ("bool", 0.0), ("choice", 0.0)),
    ]
    assert found.num_left_out == 1


def test_a_data_sets_own_tolerance_is_relative_to_its_answer(tmp_path: Path) -> None:
    path = written(tmp_path, "olympiadbench", row(answer="4.2", meta={"error": "1e-1"}))
    (problem,) = load_problems(parse_task(str(path)), None, None, 1).problems
    assert problem.relative_tolerance == pytest.approx(0.1 / 4.2)


def test_truthfulqa_becomes_multiple_choice_in_an_order_that_tells_nothing() -> None:
    places = set()
    for number in range(40):
        meta = {"incorrect_answers": ["bad", "worse", "bad"]}
        made = as_multiple_choice(row(number, answer="good", meta=meta))
        assert made["prompt"].count("\n(") == 3
        assert f"({made['answer']}) good" in made["prompt"]
        places.add(made["answer"])
    assert places == {"A", "B", "C"}


def test_rows_of_the_hub_are_read_by_their_own_columns() -> None:
    hub = Hub("hf:x/y", "question", "answer", solved=True)
    values = {"question": "1 + 1?", "answer": "one and one\n#### 2", "options": ["1", "2"]}
    found = make_problems(TASKS["gsm8k"], [Row("x/y", 7, values)], "hf:x/y", hub)
    (problem,) = found.problems
    assert (problem.id, problem.gold) == ("x/y/7", "2")
    assert problem.question == "1 + 1?\nOptions:\n(A) 1\n(B) 2"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row()], r"repeats the id 'x/0'"),
        ([{"id": "a", "prompt": "?"}], r"has no column 'answer'"),
        ([row(answer=" ")], "empty answer: nothing to grade against"),
    ],
)
def test_unusable_data_is_told_in_one_line(tmp_path: Path, rows: list[dict], message: str) -> None:
    path = written(tmp_path, "gsm8k", *rows)
    with pytest.raises(UserError, match=message):
        load_problems(parse_task(str(path)), None, None, 1)


def test_a_part_of_the_problems_is_the_same_part_each_time(tmp_path: Path) -> None:
    rows = [row(i) for i in range(30)]
    first = load_problems(parse_task(str(written(tmp_path, "a", *rows))), None, None, 1)
    again = load_problems(parse_task(str(written(tmp_path, "b", *rows[::-1]))), None, None, 1)
    some = sample_problems(first, 10)
    assert len(some.problems) == 10
    assert some.problems == sample_problems(again, 10).problems
    assert some.sha256 != first.sha256


def test_a_generated_family_is_drawn_apart_from_training() -> None:
    found = load_problems(parse_task("reasoning-gym:chain_sum"), None, 20, 1)
    assert len({problem.question for problem in found.problems}) == 20
    assert {problem.kind for problem in found.problems} == {"math"}


def test_braces_of_a_problem_are_text() -> None:
    (message,) = build_problem_messages("boxed/v1", "What is {x} in {problem}?")
    assert message["content"] == (
        "What is {x} in {problem}?\n\nReason step by step and put the final answer in \\boxed{}."
    )


@pytest.mark.parametrize("name", NAMED)
def test_the_data_sets_beside_the_checkout_are_read(name: str) -> None:
    task = TASKS[name]
    if not any((SHARED / folder).is_dir() for folder in task.folders):
        pytest.skip(f"{SHARED / task.folders[0]} is missing")
    found = load_problems(parse_task(name), str(SHARED), None, 1)
    assert len(found.problems) >= 30
