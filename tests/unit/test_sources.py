"""Prompts of a run: which rows are taken, in what order, and how the splits are kept apart."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from cgd_ray.errors import UserError
from cgd_ray.identity import content_id
from cgd_ray.prompts.seen import SeenIds
from cgd_ray.prompts.sources import load_prompts, source_versions
from cgd_ray.records import Outcomes
from cgd_ray.settings import PromptSettings
from tests.support.prompt_files import ROWS, TEST, joined, loaded, of_split, refusal, write


@pytest.fixture
def tests_file(tmp_path: Path) -> Path:
    return write(tmp_path / "test" / "t.jsonl", TEST)


def test_columns_have_the_names_that_settings_give(tmp_path: Path, tests_file: Path) -> None:
    rows = [{"q": "Why?", "gold": 4.5, "steps": " so "}]
    columns = {"prompt": "q", "reference": "gold", "solution": "steps"}
    path = write(tmp_path / "a.jsonl", rows)
    other = write(tmp_path / "b.jsonl", [{"q": "How?", "gold": 7, "steps": ""}])
    train, test = loaded(path, other, columns=columns).records
    assert (train.text, train.reference, train.solution) == ("Why?", "4.5", "so")
    assert (test.reference, test.solution) == ("7", None)


def test_data_without_references_or_solutions(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "Why?"}])
    other = write(tmp_path / "b.jsonl", [{"prompt": "How?"}])
    outcomes = loaded(path, other, columns={"reference": None, "solution": None})
    assert [p.reference for p in outcomes.records] == [None, None]


def test_a_missing_column_is_named_with_its_setting(tmp_path: Path, tests_file: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, {"prompt": "x", "gold": 1}])
    said = refusal(path, tests_file)
    assert "a.jsonl:7 has no column 'answer' (it has prompt, gold)" in said
    assert "prompts.columns.reference" in said
    path = write(tmp_path / "a.parquet", [{"question": "x", "answer": "1"}])
    assert "no column 'prompt' (it has question, answer)" in refusal(path, tests_file)


def test_a_duplicate_is_refused_with_both_places(tmp_path: Path, tests_file: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, {"prompt": " What is 2 + 1? ", "answer": "3"}])
    said = refusal(path, tests_file)
    assert "a.jsonl:7 has the same prompt as a.jsonl:3" in said
    assert "prompts.on_duplicate=first" in said
    assert len(of_split(loaded(path, tests_file, on_duplicate="first"), "train")) == 6


def test_a_test_prompt_that_is_in_training_is_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", ROWS)
    test = write(tmp_path / "b.jsonl", [*TEST, ROWS[4]])
    assert "a.jsonl:5 has the same prompt as b.jsonl:4" in refusal(train, test)
    outcomes = loaded(train, test, on_duplicate="first")
    assert len(of_split(outcomes, "test")) == 4
    assert len(of_split(outcomes, "train")) == len(ROWS) - 1
    ids = [record.key for record in outcomes.records]
    assert len(set(ids)) == len(ids)


def test_one_file_can_give_both_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ValidationError, match=r"prompts\.num_train must be set when prompts\.test"):
        loaded(path, path)
    for name, value in {"decontaminate": (), "near_duplicates": 0.8}.items():
        with pytest.raises(ValidationError, match=f"prompts.{name} compares"):
            loaded(path, path, num_train=4, **{name: value})
    outcomes = loaded(path, path, num_train=4)
    assert outcomes.failures == ()
    assert [p.text for p in of_split(outcomes, "train")] == [r["prompt"] for r in ROWS[:4]]
    assert [p.text for p in of_split(outcomes, "test")] == [r["prompt"] for r in ROWS[4:]]


def test_limits_take_the_first_rows(tmp_path: Path, tests_file: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    outcomes = loaded(path, tests_file, num_train=2, num_test=1)
    assert [p.text for p in outcomes.records] == [r["prompt"] for r in (ROWS[0], ROWS[1], TEST[0])]
    assert len(of_split(loaded(path, tests_file, num_train=99), "train")) == 6


def test_a_chunk_is_of_one_split_in_order_and_of_1024_rows_at_most(
    tmp_path: Path, tests_file: Path
) -> None:
    rows = [{"prompt": "" if i % 7 == 0 else f"row {i}", "answer": "1"} for i in range(3000)]
    train = write(tmp_path / "a.jsonl", rows)
    settings = PromptSettings(train=str(train), test=str(tests_file))
    chunks = list(load_prompts(settings, 1))
    assert chunks == list(load_prompts(settings, 1))
    assert [len(c.records) + len(c.failures) for c in chunks] == [3, 1024, 1024, 952]
    assert [{r.split for r in c.records} for c in chunks] == [{"test"}, *[{"train"}] * 3]
    texts = [r.text for c in chunks[1:] for r in c.records]
    assert texts == [row["prompt"] for row in rows if row["prompt"]]


def test_a_chunk_of_long_texts_is_shorter(tmp_path: Path, tests_file: Path) -> None:
    rows = [{"prompt": f"{i} " + "x" * 6_000_000, "answer": "1"} for i in range(4)]
    train = str(write(tmp_path / "a.jsonl", rows))
    settings = PromptSettings(train=train, test=str(tests_file), max_characters=10**7)
    assert [len(c.records) for c in load_prompts(settings, 1)] == [3, 3, 1]


def test_a_limit_takes_no_row_more_than_it_needs(tmp_path: Path, tests_file: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS[:3])
    path.write_text(path.read_text() + "not JSON")
    assert len(of_split(loaded(path, tests_file, num_train=3), "train")) == 3
    assert "a.jsonl:4 is not JSON" in refusal(path, tests_file)


def test_a_repeated_row_is_a_failure_that_names_the_first(tmp_path: Path, tests_file: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, ROWS[2], TEST[1]])
    failures = loaded(path, tests_file, on_duplicate="first").failures
    assert [(f.reason, f.detail) for f in failures] == [
        ("duplicate", "a.jsonl:7: the same prompt as a.jsonl:3"),
        ("duplicate", "a.jsonl:8: the same prompt as t.jsonl:2"),
    ]


def test_ids_are_remembered_with_their_places() -> None:
    seen = SeenIds()
    ids = [content_id(str(i)) for i in range(140_000)]  # two merges, and some that wait
    for i, prompt_id in enumerate(ids):
        seen.add(prompt_id, f"file {i % 3}", i)
    assert len(seen) == len(ids)
    for i in (0, 1, 65_535, 65_536, 131_071, 131_072, 139_999):
        assert seen.place(ids[i]) == f"file {i % 3}:{i}"
    assert [seen.place(x) for x in ("0" * 16, "f" * 16, content_id("other"))] == [None] * 3


def test_a_hub_data_set_named_twice_is_two_splits() -> None:
    both = "hf:owner/name"
    assert not PromptSettings(train=both, test=both).splits_one_file
    one = f"{both}?split=train"
    assert PromptSettings(train=one, test=one, num_train=5).splits_one_file


def test_a_source_is_told_with_the_shape_that_it_has(tmp_path: Path, tests_file: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    train = write(tmp_path / "a.jsonl", [{"messages": turns}, {"messages": turns[1:]}])
    told: list[str] = []
    settings = PromptSettings(train=str(train), test=str(tests_file))
    _, chunk = load_prompts(settings, 1, told.append)
    assert told == [
        f"prompts.test={tests_file} read as prompts.shape=columns",
        f"prompts.train={train} read as prompts.shape=messages",
    ]
    assert [(p.text, p.solution) for p in chunk.records] == [("Why?", "So.")]
    assert [f.reason for f in chunk.failures] == ["no_question"]


GENERATED = "reasoning-gym:chain_sum"


def generated(num_train: int, num_test: int, seed: int = 1, **options: object) -> Outcomes:
    settings = PromptSettings(
        train=GENERATED, num_train=num_train, num_test=num_test, options=options
    )
    return joined(settings, seed)


def test_generated_splits_are_disjoint_and_as_large_as_asked() -> None:
    # 90 different problems: train and test must share them out.
    outcomes = generated(50, 30, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    train, test = of_split(outcomes, "train"), of_split(outcomes, "test")
    assert (len(train), len(test)) == (50, 30)
    assert {p.id for p in train}.isdisjoint(p.id for p in test)
    assert len({p.text for p in outcomes.records}) == 80
    assert all(p.reference for p in outcomes.records)


def test_generated_prompts_depend_on_the_seed_alone() -> None:
    assert generated(20, 10) == generated(20, 10)
    assert generated(20, 10) != generated(20, 10, seed=2)
    longer = of_split(generated(30, 10), "train")
    assert of_split(generated(20, 10), "train") == longer[:20]


def test_another_seed_draws_other_problems() -> None:
    first, second = generated(50, 20), generated(50, 20, seed=2)
    common = {p.key for p in first.records} & {p.key for p in second.records}
    assert len(common) <= 5


def test_more_training_prompts_leave_the_test_as_it_is() -> None:
    shorter, longer = generated(20, 10), generated(30, 10)
    assert of_split(shorter, "test") == of_split(longer, "test")


def test_a_family_that_runs_out_is_refused() -> None:
    with pytest.raises(UserError, match=r"different problems: lower prompts\.num_train"):
        generated(5000, 1, min_terms=2, max_terms=2, min_digits=1, max_digits=1)


@pytest.mark.parametrize(
    ("train", "options"),
    [
        ("reasoning-gym:no_such_family", {}),
        (GENERATED, {"no_such_option": 1}),
        (GENERATED, {"min_terms": 9, "max_terms": 2}),
    ],
)
def test_a_generator_that_cannot_be_made_is_named(train: str, options: dict[str, int]) -> None:
    said = refusal(train, None, num_train=1, num_test=1, options=options)
    assert f"'{train}' with prompts.options={options}" in said


def test_versions_change_with_the_files(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", ROWS)
    test = write(tmp_path / "b.jsonl", TEST)
    settings = PromptSettings(train=str(train), test=str(test))
    before = source_versions(settings)
    assert len(before) == 2
    assert source_versions(settings) == before
    write(train, ROWS[:2])
    after = source_versions(settings)
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert source_versions(PromptSettings(train=GENERATED, num_train=1, num_test=1)) == ()
    with pytest.raises(UserError, match="matches no"):
        source_versions(PromptSettings(train=str(tmp_path / "no.jsonl"), test=str(test)))


def test_a_test_prompt_without_a_reference_is_a_failure_row(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", ROWS)
    test = write(tmp_path / "b.jsonl", [*TEST, {"prompt": "unanswered", "answer": None}])
    outcomes = loaded(train, test)
    assert len(of_split(outcomes, "test")) == len(TEST)
    assert [f.reason for f in outcomes.failures] == ["no_reference"]
    none = write(tmp_path / "c.jsonl", [{"prompt": "unanswered", "answer": ""}])
    assert "needs a reference (prompts.columns.reference)" in refusal(train, none)
