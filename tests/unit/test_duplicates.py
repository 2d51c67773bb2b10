"""Near duplicates: what is alike, what is not, and what becomes of it."""

import json
from pathlib import Path

from cgd_ray.curation.duplicates import NearDuplicates
from cgd_ray.prompts.sources import load_prompts
from cgd_ray.records import Prompt
from cgd_ray.settings import PromptSettings

STORY = (
    "Robin buys 3 boxes of 12 eggs at the market on Monday, breaks a quarter of them on the way "
    "home, and bakes 4 cakes that take 5 eggs each. How many whole eggs are left on Tuesday?"
)
ALIKE = STORY.replace("Tuesday", "Friday")  # all triples but one: a similarity of 0.94
OTHER = STORY.replace("3 boxes", "7 boxes").replace("4 cakes", "9 pies").replace("Monday", "Friday")


def test_texts_are_alike_from_the_threshold_on() -> None:
    known = NearDuplicates(0.8)
    assert known.find_or_keep(STORY, "first") is None
    assert known.find_or_keep(STORY.upper(), "copy") == "first"
    assert known.find_or_keep(ALIKE, "alike") == "first"
    assert known.find_or_keep(OTHER, "other") is None
    assert known.find_or_keep("Why?", "short") is None
    assert known.find_or_keep("why", "short again") == "short"
    strict = NearDuplicates(1.0)
    strict.keep(STORY, "first")
    assert strict.find_or_keep(ALIKE, "alike") is None


def test_many_texts_that_share_a_frame_are_kept() -> None:
    known = NearDuplicates(0.8)
    texts = [f"Add the numbers {i} and {i * i} and {i + 7}, then halve." for i in range(500)]
    assert [known.find_or_keep(text, str(i)) for i, text in enumerate(texts)] == [None] * 500
    assert [known.find_or_keep(text, "x") for text in texts] == [str(i) for i in range(500)]


def write(path: Path, *texts: str) -> str:
    rows = [{"prompt": text, "answer": "1"} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_training_row_that_is_near_an_earlier_row_is_a_failure_that_names_it(
    tmp_path: Path,
) -> None:
    train = write(tmp_path / "a.jsonl", OTHER, f"{OTHER} Now.", ALIKE, "Why?")
    test = write(tmp_path / "b.jsonl", STORY, f"{STORY} Now.")
    first, second = load_prompts(PromptSettings(train=train, test=test, near_duplicates=0.8), 1)
    assert len(first.records) == 2  # the test is never thinned
    assert [r.text for r in second.records if isinstance(r, Prompt)] == [OTHER, "Why?"]
    assert [(f.reason, f.detail) for f in second.failures] == [
        ("near_duplicate", "a.jsonl:2: nearly the same as a.jsonl:1"),
        ("near_duplicate", "a.jsonl:3: nearly the same as b.jsonl:1"),
    ]
