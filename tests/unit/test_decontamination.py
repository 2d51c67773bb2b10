"""Contamination: planted copies are found, like problems are not; the report says what."""

import gzip
import json
import random
import re
from pathlib import Path

import pytest

from cgd_ray.curation.decontamination import EvaluationIndex, Match
from cgd_ray.curation.words import runs, words
from cgd_ray.errors import UserError
from cgd_ray.prompts.overlap import Overlap
from cgd_ray.prompts.sources import load_prompts, source_versions
from cgd_ray.records import Prompt
from cgd_ray.settings import PromptSettings

STORY = (
    "Robin buys 3 boxes of 12 eggs at the market on Monday, breaks a quarter of them on the way "
    "home, and bakes 4 cakes that take 5 eggs each. How many whole eggs are left on Tuesday?"
)


def index(*texts: str, length: int = 13, min_share: float = 0.5) -> EvaluationIndex:
    made = EvaluationIndex(length, min_share)
    for number, text in enumerate(texts, 1):
        made.add(text, f"e:{number}")
    return made


def test_words_see_through_case_spacing_and_punctuation_alone() -> None:
    assert words("What's  2+3?\n") == words("what s 2 + 3") == ["what", "s", "2", "+", "3"]
    assert words("2 - 3") != words("2 + 3")
    assert words("\uff12\u00bd caf\u00e9") == words("21\u20442 cafe\u0301")
    assert words("\u4f60\u597d") == ["\u4f60", "\u597d"]
    assert words(" ?! ") == []


def test_runs_of_words() -> None:
    assert runs(["a", "b", "c"], 2) == ["a b", "b c"]
    assert runs(["a"], 2) == ["a"]


def test_a_copy_is_found_whatever_is_around_it() -> None:
    found = index("Another problem. " * 9, STORY).find(
        f"Solve this. {STORY.upper()} Show your work."
    )
    num_runs = len(words(STORY)) - 12
    first = "robin buys 3 boxes of 12 eggs at the market on monday breaks"
    assert found == Match("e:2", 1.0, num_runs, first)


def test_a_part_counts_from_the_share_that_is_asked() -> None:
    assert len(words(STORY)) == 38  # 26 runs
    half = " ".join(STORY.split()[:25])  # 13 of them
    assert index(STORY, min_share=0.51).find(half) is None
    found = index(STORY, min_share=0.5).find(half)
    assert found is not None
    assert (found.share, found.num_runs) == (0.5, 13)


def test_what_opens_every_problem_says_nothing_about_any() -> None:
    opening = "Read the table of prices below with care and give the answer as one letter only. "
    texts = [opening + f"Which of the goods numbered {i} is it?" for i in range(50)]
    assert index(*texts).find(opening + "What does a kilogram of pears cost in May?") is None
    assert index(*texts).find(texts[7]) == Match("e:8", 1.0, 12, words_of(texts[7]))


def words_of(text: str) -> str:
    return " ".join(words(text)[:13])


def test_a_short_problem_must_be_equal_as_a_whole() -> None:
    known = index("What is 2 + 3?", "?!")
    assert known.find("what is 2+3") == Match("e:1", 1.0, 1, "what is 2 + 3")
    assert known.find("What is 2 + 3 + 4?") is None
    assert known.find("What is 2 - 3?") is None
    assert known.find("!") is None


def write(path: Path, *texts: str) -> str:
    rows = [{"prompt": text, "answer": "1"} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_contaminated_row_is_a_failure_with_a_line_in_the_report(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", "Fine.", f"Hello. {STORY}", "Tested?")
    settings = PromptSettings(
        train=train,
        test=write(tmp_path / "b.jsonl", "tested"),
        decontaminate=(write(tmp_path / "c.jsonl", "?", STORY),),
    )
    assert len(source_versions(settings)) == 3
    test, chunk = load_prompts(settings, 1)
    assert [r.key for r in test.records if isinstance(r, Prompt)] == [r.key for r in test.records]
    assert [r.text for r in chunk.records if isinstance(r, Prompt)] == ["Fine."]
    assert [(f.reason, f.key) for f in chunk.failures] == [
        ("contaminated", "unusable:train:a.jsonl:2"),
        ("contaminated", "unusable:train:a.jsonl:3"),
    ]
    assert (
        chunk.failures[1].detail == "a.jsonl:3: holds 100% of prompts.test at b.jsonl:1 ('tested')"
    )
    first, second = (r for r in chunk.records if isinstance(r, Overlap))
    assert (first.row_id, first.evaluation) == (
        chunk.failures[0].key,
        f"{tmp_path}/c.jsonl at c.jsonl:2",
    )
    assert (first.share, first.text) == (1.0, f"Hello. {STORY}")
    assert second.run == "tested"


def test_without_the_setting_only_equal_prompts_are_kept_apart(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", f"Hello. {STORY}")
    test = write(tmp_path / "b.jsonl", STORY)
    (_, chunk) = load_prompts(PromptSettings(train=train, test=test), 1)
    assert chunk.failures == ()
    with pytest.raises(UserError, match=r"no usable rows \(1 unusable; for example a\.jsonl:1: h"):
        list(load_prompts(PromptSettings(train=train, test=test, decontaminate=()), 1))


def test_an_evaluation_set_without_rows_is_named(tmp_path: Path) -> None:
    files = write(tmp_path / "a.jsonl", "x"), write(tmp_path / "b.jsonl", "y")
    for name in ("none.jsonl", "empty.jsonl"):
        write(tmp_path / "empty.jsonl")
        settings = PromptSettings(
            train=files[0], test=files[1], decontaminate=(str(tmp_path / name),)
        )
        with pytest.raises(UserError, match=rf"prompts\.decontaminate={tmp_path}/{name}"):
            list(load_prompts(settings, 1))


def prompts(path: Path) -> list[str]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line)["prompt"] for line in file]


def test_planted_copies_among_real_problems(datasets_dir: Path) -> None:
    """All copies are found and nothing else is taken for one; problems with new numbers mostly not.

    One of these 2,000 training problems of GSM8K is a test problem with other numbers.
    """
    held_out = prompts(datasets_dir / "gsm8k" / "test.jsonl")
    train = prompts(datasets_dir / "gsm8k" / "train.jsonl.gz")[:2000]
    known = index(*held_out)
    assert [text[:30] for text in train if known.find(text)] == ["A train travels 270 miles in 3"]
    planted = random.Random(0).sample(range(len(held_out)), 100)
    for copy in (str, str.upper, lambda text: f"Solve this.\n{text}\nShow your work."):
        found = [known.find(copy(held_out[i])) for i in planted]
        assert [match and match.evaluation for match in found] == [f"e:{i + 1}" for i in planted]
    changed = [re.sub(r"\d+", lambda n: str(int(n.group()) + 7), held_out[i]) for i in planted]
    assert 10 <= sum(known.find(text) is not None for text in changed) <= 40
