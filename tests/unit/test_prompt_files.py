"""Prompt files: good ones of every kind, and each way in which one can be bad."""

import gzip
import json
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.identity import content_id
from cgd_ray.prompts.sources import load_prompts
from cgd_ray.settings import PromptSettings
from tests.support.prompt_files import ROWS, TEST, joined, loaded, of_split, refusal, write


@pytest.fixture
def tests_file(tmp_path: Path) -> Path:
    return write(tmp_path / "test" / "t.jsonl", TEST)


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


def test_what_save_to_disk_writes_is_read_a_split_at_a_time(
    tmp_path: Path, tests_file: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(TEST)}
    datasets.DatasetDict(splits).save_to_disk(
        tmp_path / "saved", num_shards={"train": 2, "test": 1}
    )
    outcomes = loaded(tmp_path / "saved/train", tmp_path / "saved/test")
    assert [p.text for p in outcomes.records] == [r["prompt"] for r in [*ROWS, *TEST]]
    said = refusal(tmp_path / "saved", tests_file)
    assert f"name one, such as {tmp_path}/saved/train" in said


def test_columns_that_change_between_files_are_named(tmp_path: Path, tests_file: Path) -> None:
    for format_name in ("jsonl", "parquet", "csv"):
        folder = tmp_path / format_name
        write(folder / f"a.{format_name}", ROWS[:2])
        write(folder / f"b.{format_name}", [{"question": "x", "answer": "1"}])
        said = refusal(folder, tests_file)
        assert f"b.{format_name}:1 has no column 'prompt' (it has question, answer)" in said


def test_a_column_that_changes_its_type_gives_failure_rows(
    tmp_path: Path, tests_file: Path
) -> None:
    write(tmp_path / "in" / "a.parquet", ROWS[:2])
    write(tmp_path / "in" / "b.parquet", [{"prompt": 7, "answer": 1}])
    outcomes = loaded(tmp_path / "in", tests_file)
    assert [f.detail for f in outcomes.failures] == ["in/b.parquet:1: the prompt is not text"]


def test_a_file_that_ends_too_early_is_named_after_its_good_rows(
    tmp_path: Path, tests_file: Path
) -> None:
    rows = [{"prompt": f"row {i} {content_id(str(i))}", "answer": "1"} for i in range(5000)]
    path = write(tmp_path / "a.jsonl.gz", rows)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    settings = PromptSettings(train=str(path), test=str(tests_file))
    chunks = load_prompts(settings, 1)
    assert len([next(chunks), next(chunks)]) == 2
    with pytest.raises(UserError, match=r"a\.jsonl\.gz is not readable after line 3\d\d\d: "):
        list(chunks)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_a_prompt_of_10_mb_is_a_failure_row(tmp_path: Path, tests_file: Path, name: str) -> None:
    path = write(tmp_path / name, [{"prompt": "x" * 10_000_000, "answer": "1"}, *ROWS])
    outcomes = loaded(path, tests_file)
    said = f"{name}:1: 10000000 characters are more than prompts.max_characters=200000"
    assert [(f.reason, f.detail) for f in outcomes.failures] == [("too_long", said)]
    assert len(of_split(outcomes, "train")) == len(ROWS)


def test_markup_of_chat_templates_is_text(tmp_path: Path, tests_file: Path) -> None:
    text = "What does <|im_end|>\n<|im_start|>system mean, and [INST]?"
    path = write(tmp_path / "a.jsonl", [{"prompt": text, "answer": "1"}])
    assert [p.text for p in of_split(loaded(path, tests_file), "train")] == [text]


@pytest.mark.parametrize("column", ["answer", "solution"])
def test_a_reference_that_cannot_be_stored_is_a_failure_row(
    tmp_path: Path, tests_file: Path, column: str
) -> None:
    row = {"prompt": "x", "answer": "1", column: "lone \ud800 surrogate"}
    outcomes = loaded(write(tmp_path / "a.jsonl", [row, *ROWS]), tests_file)
    assert [f.reason for f in outcomes.failures] == ["bad_text"]
    assert {"answer": "the reference", "solution": "the solution"}[column] in outcomes.failures[
        0
    ].detail


def test_values_of_a_csv_file_stay_text(tmp_path: Path, tests_file: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffprompt,answer\n"Say ""a"",\nthen b",007\n')
    (train,) = of_split(loaded(path, tests_file), "train")
    assert (train.text, train.reference) == ('Say "a",\nthen b', "007")
    path.write_text("prompt,answer\nx\n")
    assert "a.csv:1 has not as many values as the header" in refusal(path, tests_file)


def test_a_byte_order_mark_is_no_text(tmp_path: Path, tests_file: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode())
    assert len(of_split(loaded(path, tests_file), "train")) == 1


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
