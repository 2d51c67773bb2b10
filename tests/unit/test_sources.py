"""Prompt sources: good files of every kind, and each way in which a file can be bad."""

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cgd_ray.errors import UserError
from cgd_ray.identity import content_id
from cgd_ray.prompts.seen import SeenIds
from cgd_ray.prompts.sources import load_prompts, source_versions
from cgd_ray.records import Outcomes, Prompt
from cgd_ray.settings import PromptSettings

ROWS = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(6)]
TEST = [{"prompt": f"What is {i} + 2?", "answer": str(i + 2)} for i in range(3)]


def write(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    """Write rows in the format that the file's name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(list(rows))
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


@pytest.fixture
def tests_file(tmp_path: Path) -> Path:
    return write(tmp_path / "test" / "t.jsonl", TEST)


def loaded(train: Path | str, test: Path | str | None, **values: object) -> Outcomes:
    settings = PromptSettings(train=str(train), test=test and str(test), **values)
    return joined(settings, 1)


def joined(settings: PromptSettings, seed: int) -> Outcomes:
    """Return all chunks as one, training first."""
    chunks = list(load_prompts(settings, seed))
    records = sorted((r for c in chunks for r in c.records), key=lambda r: r.split == "test")
    return Outcomes(tuple(records), tuple(f for c in chunks for f in c.failures))


def refusal(train: Path | str, test: Path | str | None, **values: object) -> str:
    with pytest.raises(UserError) as raised:
        loaded(train, test, **values)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def of_split(outcomes: Outcomes, split: str) -> list[Prompt]:
    return [p for p in outcomes.records if isinstance(p, Prompt) and p.split == split]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow", "a.csv"])
def test_every_format_gives_the_same_prompts(tmp_path: Path, tests_file: Path, name: str) -> None:
    outcomes = loaded(write(tmp_path / name, ROWS), tests_file)
    train = of_split(outcomes, "train")
    assert [(p.text, p.reference) for p in train] == [(r["prompt"], r["answer"]) for r in ROWS]
    assert [p.id for p in train] == [content_id(r["prompt"]) for r in ROWS]
    assert {p.source for p in train} == {str(tmp_path / name)}
    assert len(of_split(outcomes, "test")) == 3
    assert outcomes.failures == ()


@pytest.mark.parametrize(
    ("location", "number"),
    [
        ("data", 6),
        ("data/", 6),
        ("data/*.jsonl", 2),
        ("data/*.parquet", 2),
        ("data/*/c.parquet", 1),
        ("d*/a.jsonl", 1),
        ("*.jsonl", 2),
    ],
)
def test_folders_and_globs(tmp_path: Path, tests_file: Path, location: str, number: int) -> None:
    write(tmp_path / "train" / "data" / "a.jsonl", ROWS[:1])
    write(tmp_path / "train" / "data" / "b.jsonl", ROWS[1:2])
    write(tmp_path / "train" / "data" / "b.jsonl.gz", ROWS[2:4])
    write(tmp_path / "train" / "data" / "deep" / "c.parquet", ROWS[4:5])
    write(tmp_path / "train" / "data" / "d.parquet", ROWS[5:])
    (tmp_path / "train" / "data" / "README.md").write_text("no prompts")
    write(tmp_path / "train" / "database" / "x.parquet", TEST)
    outcomes = loaded(f"{tmp_path}/train/{location}", tests_file)
    assert len(of_split(outcomes, "train")) == number


def test_a_relative_glob_stays_in_the_folder(
    tmp_path: Path, tests_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here" / "a.jsonl", ROWS)
    monkeypatch.chdir(tmp_path / "here")
    assert len(of_split(loaded("*.jsonl", tests_file), "train")) == 6
    assert len(of_split(loaded("a.jsonl", tests_file), "train")) == 6


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


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b"", "has no usable rows (0 unusable)"),
        ("a.jsonl", b"\n \n", "has no usable rows (0 unusable)"),
        ("a.jsonl", b'{"prompt": ""}', "has no column 'answer'"),
        (
            "a.jsonl",
            b'{"prompt": "", "answer": "1"}',
            "has no usable rows (1 unusable; for example a.jsonl:1: the prompt is empty)",
        ),
        ("a.jsonl", b'{"prompt": "x", "answer": "1"}\n\n{"prompt"', "a.jsonl:3 is not JSON"),
        ("a.jsonl", b"[1, 2]", "a.jsonl:1 is not a JSON object"),
        ("a.jsonl", b'{"prompt": "x", "answer": ' + b"1" * 5000 + b"}", "a.jsonl:1 is not JSON"),
        ("a.jsonl", b'{"prompt": ' + b"[" * 10**6, "a.jsonl:1 is not JSON"),
        ("a.jsonl", b'{"prompt": "\xff"}', "a.jsonl:1 is not UTF-8 text"),
        ("a.jsonl.gz", b"not gzip", "a.jsonl.gz is not readable after line 0"),
        ("a.jsonl.gz", gzip.compress(b"x" * 999)[:-9], "a.jsonl.gz is not readable after line 0"),
        ("a.jsonl.gz", gzip.compress(b"x")[:10] + b"\xff" * 20, "is not readable after line 0"),
        ("a.parquet", b"", "a.parquet is not a readable parquet file"),
        ("a.parquet", b"PAR1 nonsense PAR1", "a.parquet is not a readable parquet file"),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path, tests_file: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)
    assert said in refusal(tmp_path / name, tests_file)


def test_a_truncated_parquet_file_is_named(tmp_path: Path, tests_file: Path) -> None:
    path = write(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    assert "a.parquet is not a readable parquet file" in refusal(path, tests_file)


@pytest.mark.parametrize("location", ["no.jsonl", "*.parquet", "empty", "a.txt"])
def test_a_location_that_matches_nothing_is_named(
    tmp_path: Path, tests_file: Path, location: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("prompt,answer\n")
    said = refusal(tmp_path / location, tests_file)
    assert f"prompts.train={tmp_path / location} matches no prompt file (.jsonl" in said


def test_unusable_rows_are_failures_and_the_rest_is_unharmed(
    tmp_path: Path, tests_file: Path
) -> None:
    bad = ["", None, "   ", 7, ["x"], "a\0b", "lone \ud800 surrogate"]
    rows = [*ROWS, *({"prompt": text, "answer": "1"} for text in bad)]
    outcomes = loaded(write(tmp_path / "a.jsonl", rows), tests_file)
    assert [p.text for p in of_split(outcomes, "train")] == [r["prompt"] for r in ROWS]
    assert [f.reason for f in outcomes.failures] == ["empty_prompt"] * 5 + ["bad_text"] * 2
    assert all(f.permanent and f.stage == "prompts" for f in outcomes.failures)
    assert [f.detail for f in outcomes.failures] == [
        "a.jsonl:7: the prompt is empty",
        "a.jsonl:8: the prompt is empty",
        "a.jsonl:9: the prompt is empty",
        "a.jsonl:10: the prompt is not text",
        "a.jsonl:11: the prompt is not text",
        "a.jsonl:12: the prompt holds NUL or lone surrogate characters",
        "a.jsonl:13: the prompt holds NUL or lone surrogate characters",
    ]
    assert len({f.key for f in outcomes.failures}) == len(bad)


def test_unusable_rows_of_two_files_of_one_name_are_two_failures(tmp_path: Path) -> None:
    empty = {"prompt": "", "answer": "1"}
    train = write(tmp_path / "train" / "a.jsonl", [empty, *ROWS])
    test = write(tmp_path / "test" / "a.jsonl", [empty, *TEST])
    keys = [failure.key for failure in loaded(train, test).failures]
    assert len(set(keys)) == 2


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


def test_a_row_is_named_by_its_line(tmp_path: Path, tests_file: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x", "answer": "1"}\n\n\n{"prompt": "", "answer": "1"}\n')
    (failure,) = loaded(path, tests_file).failures
    assert failure.detail.startswith("a.jsonl:4:")


def test_line_separators_inside_a_text_are_text(tmp_path: Path, tests_file: Path) -> None:
    rows = [{"prompt": "a\u2028b\u0085c\r\nd", "answer": "1"}]
    path = tmp_path / "a.jsonl"
    path.write_bytes((json.dumps(rows[0], ensure_ascii=False) + "\r\n").encode())
    (train,) = of_split(loaded(path, tests_file), "train")
    assert train.text == rows[0]["prompt"]


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


def test_real_data_sets_load(datasets_dir: Path) -> None:
    settings = PromptSettings(
        train=str(datasets_dir / "gsm8k/train.jsonl.gz"),
        test=str(datasets_dir / "gsm8k/test.jsonl"),
        num_train=50,
        num_test=20,
    )
    outcomes = joined(settings, 1)
    assert (len(of_split(outcomes, "train")), len(of_split(outcomes, "test"))) == (50, 20)
    assert outcomes.failures == ()


def test_a_test_prompt_without_a_reference_is_a_failure_row(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", ROWS)
    test = write(tmp_path / "b.jsonl", [*TEST, {"prompt": "unanswered", "answer": None}])
    outcomes = loaded(train, test)
    assert len(of_split(outcomes, "test")) == len(TEST)
    assert [f.reason for f in outcomes.failures] == ["no_reference"]
    none = write(tmp_path / "c.jsonl", [{"prompt": "unanswered", "answer": ""}])
    assert "needs a reference (prompts.columns.reference)" in refusal(train, none)
