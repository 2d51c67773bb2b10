"""Engine answers -> drafts and failures, through a real store."""

from pathlib import Path

import pyarrow as pa

from cgd_ray.records import Draft
from cgd_ray.sampling.answers import ANSWERS, quarantined, row_ids, with_answers
from cgd_ray.sampling.echo import echo
from cgd_ray.sampling.writer import write_drafts
from cgd_ray.shards import read_failures, read_records
from cgd_ray.store import open_store
from tests.support.draft_rows import draft_rows


def test_other_columns_come_out_as_they_went_in():
    rows = draft_rows(5)
    out = with_answers(rows, echo(rows))
    assert out.column_names == [
        *(n for n in rows.column_names if n not in ("tokenized_prompt", "sampling_params")),
        "num_prompt_tokens",
        *ANSWERS.names,
    ]
    assert out["prompt_record"] == rows["prompt_record"]
    assert out["generated_text"].to_pylist()[:2] == ["3 4", "4 5"]
    assert out["num_prompt_tokens"].to_pylist()[:2] == [2, 2]
    assert row_ids(rows)[-1] == "p4/0"


def test_poison_is_a_failure_for_good_and_an_engine_error_is_not(tmp_path: Path):
    rows = draft_rows(3)
    broken = pa.table([[""], [0], ["ValueError: bad\nprompt"]], schema=ANSWERS)
    answers = pa.concat_tables([echo(rows.slice(0, 1)), quarantined(3), broken])
    counts: list[tuple[int, ...]] = []
    write_drafts(
        with_answers(rows, answers),
        str(tmp_path),
        "drafts",
        lambda *numbers: counts.append(numbers),
        hand_on=False,
    )
    assert counts == [(1, 2, 6, 2)]
    store = open_store(str(tmp_path))
    drafts = read_records(store, "drafts", Draft)
    assert [(key, draft.text) for key, draft in drafts.items()] == [("p0/0", "3 4")]
    failures = read_failures(store, "drafts", drafts)
    assert {key: (f.reason, f.permanent) for key, f in failures.items()} == {
        "p1/0": ("poison", True),
        "p2/0": ("engine_error", False),
    }
    assert "brought it down 3 times" in failures["p1/0"].detail
    assert failures["p2/0"].detail == "ValueError: bad prompt"
