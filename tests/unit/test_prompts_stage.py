"""The prompts stage without Ray, and the chains that leave a run."""

import json
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.pipeline.export import export
from cgd_ray.pipeline.prompts import make_prompts, read_prompts, split_folder
from cgd_ray.prompts.overlap import Overlap
from cgd_ray.records import Failure, Prompt
from cgd_ray.settings import Settings
from cgd_ray.shards import commit_shard, committed_files, mark_complete, read_records
from tests.support.prompt_files import ROWS, TEST, write
from tests.support.records import critique, draft, failure, refinement


def settings(folder: Path, rows: list[dict[str, object]], **prompts: object) -> Settings:
    train, test = write(folder / "a.jsonl", rows), write(folder / "b.jsonl", TEST)
    return Settings(
        run={"name": "mine", "root": str(folder / "store"), "work_dir": str(folder / "work")},
        prompts={"train": str(train), "test": str(test), **prompts},
    )


def shards(ctx: RunContext, split: str) -> list[tuple[str, int]]:
    files = committed_files(ctx.store, split_folder(ctx.folders.prompts, split))
    return sorted((file.kind, len(file.ids)) for file in files)


def test_shards_hold_one_split_and_a_stage_made_again_adds_none(tmp_path: Path) -> None:
    rows = [{"prompt": f"row {i}" if i else "", "answer": "1"} for i in range(2500)]
    ctx = open_context(settings(tmp_path, rows))
    summary = make_prompts(ctx)
    assert summary == {"train": 2499, "test": 3, "failed": {"empty_prompt": 1}}
    expected = [("Failure", 1), ("Prompt", 452), ("Prompt", 1023), ("Prompt", 1024)]
    assert shards(ctx, "train") == expected
    assert shards(ctx, "test") == [("Prompt", 3)]
    assert len(read_prompts(ctx, "train")) == 2499
    assert make_prompts(ctx) == summary
    assert shards(ctx, "train") == expected


def test_the_contamination_report_is_stored_with_its_rows(tmp_path: Path) -> None:
    rows = [*ROWS, {"prompt": "what is 1+2", "answer": "3"}]
    ctx = open_context(settings(tmp_path, rows, decontaminate=()))
    assert make_prompts(ctx)["failed"] == {"contaminated": 1}
    folder = split_folder(ctx.folders.prompts, "train")
    (overlap,) = read_records(ctx.store, folder, Overlap).values()
    assert (overlap.evaluation, overlap.share) == ("prompts.test at b.jsonl:2", 1.0)
    assert overlap.row_id in read_records(ctx.store, folder, Failure)
    assert len(read_records(ctx.store, folder, Prompt)) == len(ROWS)


def test_a_run_is_exported_as_far_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settings(tmp_path, [*ROWS, {"prompt": "", "answer": "1"}])
    with pytest.raises(UserError, match="run `cgd prompts`"):
        export(run, tmp_path / "out")
    ctx = open_context(run)
    mark_complete(ctx.store, ctx.folders.prompts, make_prompts(ctx))
    with pytest.raises(UserError, match="run `cgd generate` first"):
        export(run, tmp_path / "out")
    first, second, *_ = read_prompts(ctx, "train")
    ids = [f"{first}/0", f"{second}/0"]
    drafts = [draft(id=i, prompt_id=i[:-2]) for i in ids]
    commit_shard(ctx.store, ctx.folders.drafts, drafts)
    taught = [critique(draft_id=ids[0]), refinement(draft_id=ids[0]), failure(ids[1], "refused")]
    commit_shard(ctx.store, ctx.folders.refinements, taught)
    export(run, tmp_path / "out")
    assert f"data set    {tmp_path}/out (1 rows)" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text().splitlines()
    for line in (
        "Generation was not finished when this was exported.",
        "| prompts | empty_prompt | 1 |",
        "| teacher | refused | 1 |",
        "| drafts | 2 |",
        "| drafts | 14 |",
        "| teacher's input | 20 |",
        f"| prompts from | {tmp_path}/a.jsonl |",
    ):
        assert line in card
    shown = json.loads("\n".join(card).split("```json\n")[1].split("```")[0])
    assert shown["teacher"]["model"] == run.teacher.model
    assert "base_url" not in shown["teacher"]
    assert "root" not in shown["run"]
