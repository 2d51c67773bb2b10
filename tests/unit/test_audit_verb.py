"""`cgd audit` over artefacts on a real store: what it prints, keeps and leaves alone."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cgd_ray.audit.page import audit_page
from cgd_ray.audit.rows import AuditRow
from cgd_ray.audit.summary import AuditSummary, Figure
from cgd_ray.cli import main
from cgd_ray.errors import UserError
from cgd_ray.pipeline.audit import audit
from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.pipeline.curate import make_curated, read_curated
from cgd_ray.pipeline.examples import read_chains
from cgd_ray.pipeline.prompts import split_folder
from cgd_ray.settings import Settings, load
from cgd_ray.shards import commit_shard, mark_complete, read_records
from tests.support.tiny_student import tiny_student
from tests.support.tutor_sample import CHAINS, ROWS, audited

RUN = """
[run]
name = "audited"
root = "{folder}/store"
work_dir = "{folder}/work"
[prompts]
train = "reasoning-gym:chain_sum"
num_train = 50
num_test = 2
[student]
model = "{folder}/tiny"
[teacher]
base_url = "http://localhost:1/v1"
model = "teacher"
"""


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RUN.format(folder=tmp_path))
    return path


@pytest.fixture
def settings(run_file: Path) -> Settings:
    return load(run_file, [])


def taught(settings: Settings) -> RunContext:
    """Return the context of a run whose refinements are finished: the hand-checked sample."""
    ctx = open_context(settings)
    f = ctx.folders
    commit_shard(ctx.store, split_folder(f.prompts, "train"), [c.prompt for c in CHAINS])
    commit_shard(ctx.store, f.drafts, [c.draft for c in CHAINS])
    commit_shard(ctx.store, f.refinements, [t for c in CHAINS for t in (c.critique, c.refinement)])
    mark_complete(ctx.store, f.refinements, {"failed": {}})
    return ctx


def audit_folder(ctx: RunContext) -> str:
    keys = [entry.key for entry in ctx.store.list("audit-")]
    (folder,) = {key.partition("/")[0] for key in keys}
    return folder


def objects(ctx: RunContext) -> dict[str, bytes]:
    return {entry.key: ctx.store.get(entry.key) for entry in ctx.store.list("")}


def test_the_page_is_what_a_person_reads(
    settings: Settings, capsys: pytest.CaptureFixture[str], golden: Callable[[str, str], None]
) -> None:
    ctx = taught(settings)
    audit(settings, information_gain=0, model="base", json=False)
    page = capsys.readouterr().out
    page = page.replace(settings.run.root, "ROOT").replace(settings.run.work_dir, "WORK")
    golden("audit.txt", page.replace(audit_folder(ctx), "audit-0123456789ab"))
    assert max(map(len, page.splitlines())) <= 120


def test_rows_and_figures_are_kept_and_nothing_else_is_touched(
    settings: Settings, run_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ctx = taught(settings)
    before = objects(ctx)
    assert main(["audit", str(run_file), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    after = objects(ctx)
    folder = audit_folder(ctx)
    assert {key: data for key, data in after.items() if not key.startswith(f"{folder}/")} == before
    rows = read_records(ctx.store, folder, AuditRow)
    assert [row.answer_new for row in rows.values()] == [row["label"]["leak"] for row in ROWS]
    assert (told["run"], told["chains"], told["information_gain"]) == ("audited", 50, None)
    assert json.loads(ctx.store.get(f"{folder}/audit.json")) == told
    figures = {figure["name"]: figure for figure in told["figures"]}
    leaked = figures["answer leaked"]
    assert (leaked["value"], leaked["num_rows"], leaked["unit"]) == (0.18, 50, "share")
    assert main(["audit", str(run_file), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == told
    assert objects(ctx) == after


def test_a_run_without_refinements_is_refused_in_one_line(
    settings: Settings, run_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ctx = open_context(settings)
    assert main(["audit", str(run_file)]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "is not finished: run `cgd generate` with the same settings first" in said[0]
    mark_complete(ctx.store, ctx.folders.refinements, {"failed": {"refused": 1}})
    with pytest.raises(UserError, match="no refinement to audit: see `cgd failures`"):
        audit(settings, information_gain=0, model="base", json=False)
    with pytest.raises(UserError, match="--information-gain=-1 must be 0"):
        audit(settings, information_gain=-1, model="base", json=False)


def test_a_student_reads_a_sample_that_grows(
    settings: Settings, run_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ctx = taught(settings)
    tiny_student(tmp_path / "tiny")
    capfd.readouterr()  # what its libraries say

    def told(number: int) -> dict[str, Any]:
        assert main(["audit", str(run_file), "--json", "--information-gain", str(number)]) == 0
        return json.loads(capfd.readouterr().out)["information_gain"]

    first = told(4)
    assert (first["model"], first["chains"]) == ("base", 4)
    assert {figure["unit"] for figure in first["figures"]} == {"nats"}
    assert {figure["num_rows"] for figure in first["figures"]} == {4}
    names = [figure["name"] for figure in first["figures"]]
    assert {"gain, own less another's", "answer, own less another's"} < {*names}
    assert len(names) == 10
    kept = {entry.key for entry in ctx.store.list(audit_folder(ctx)) if "/gain-" in entry.key}
    assert told(4) == first
    assert told(6)["chains"] == 6
    more = {entry.key for entry in ctx.store.list(audit_folder(ctx)) if "/gain-" in entry.key}
    assert kept < more
    # Two refinements are wrong, and two chains are given a critique with the words of their own.
    assert told(1000)["chains"] == 46
    plot = ElementTree.parse(Path(settings.run.work_dir) / "audited" / "entropy.svg")
    assert plot.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    with pytest.raises(UserError, match="holds no trained student: run `cgd train`"):
        audit(settings, information_gain=2, model="student", json=True)


def test_the_information_section_has_signs_and_what_was_not_measured_has_a_dash() -> None:
    figures = (
        Figure("fix rate", "share", None, None, None, 0),
        Figure("critique length", "words", 3.0, None, None, 1),
    )
    gains = (
        Figure("gain, own critique", "nats", 0.25, 0.125, 0.375, 24),
        Figure("answer, own critique alone", "nats", -2.5, -2.75, -2.25, 24),
        Figure("answer, own less another's", "nats", 0.5, 0.25, 0.75, 24),
        Figure("entropy, own critique", "nats", 1.5, 1.25, 1.75, 24),
    )
    page = audit_page("t", AuditSummary(1, 0, 0, figures), gains, "student")
    assert "\ninformation, read by student\n" in page
    assert re.search(r"^  fix rate +- +0  refinements right, ", page, re.MULTILINE)
    assert re.search(r"^  critique length +3\.0 words +1$", page, re.MULTILINE)
    assert "+0.250 nats  +0.125 to +0.375" in page
    assert " 1.500 nats    1.250 to 1.750" in page
    assert "-2.500 nats  -2.750 to -2.250" in page
    assert "+0.500 nats  +0.250 to +0.750" in page


@pytest.mark.parametrize(("leakage", "num_kept"), [("keep", 48), ("mask", 48), ("drop", 39)])
def test_leaking_critiques_are_kept_masked_or_dropped(
    settings: Settings, leakage: str, num_kept: int, run_file: Path
) -> None:
    taught(settings)
    ctx = open_context(load(run_file, [f"curation.leakage={leakage}"]))
    summary = make_curated(ctx)
    leaks = {f"p{i:02d}/0" for i, row in enumerate(ROWS) if row["label"]["leak"]}
    rows, chains = read_curated(ctx), {c.draft.id: c for c in read_chains(ctx)}
    assert summary["kept"] == len(chains) == num_kept
    assert summary["rejected"].get("critique_leaks", 0) == (9 if leakage == "drop" else 0)
    masks = {key for key, row in rows.items() if row.masked_critique is not None}
    assert masks == (leaks if leakage == "mask" else set())
    assert summary["critiques_masked"] == len(masks)
    taught_texts = {c.draft.id: c.critique.text for c in CHAINS}
    for key, chain in chains.items():
        text, reference = chain.critique.text, chain.prompt.reference or ""
        if key in masks:
            assert "[hidden]" in text
            assert reference not in text.replace("[hidden]", "").split()
            assert f"{reference}." not in text.replace("[hidden]", "").split()
        else:
            assert text == taught_texts[key]


def test_critiques_of_nothing_in_particular_can_be_rejected(
    settings: Settings, run_file: Path
) -> None:
    taught(settings)
    ctx = open_context(load(run_file, ["curation.min_specificity=0.05"]))
    summary = make_curated(ctx)
    rows = audited(CHAINS)
    usable = {r.draft_id for r in rows if r.refinement_correct}
    specific = {r.draft_id for r in rows if r.specificity >= 0.05}
    assert 0 < len(usable - specific) < len(usable)
    kept = {key for key, row in read_curated(ctx).items() if row.rejected is None}
    assert kept == usable & specific
    assert summary["rejected"] == {
        "critique_unspecific": len(usable - specific),
        "refinement_wrong": 2,
    }


def test_critiques_with_a_false_verdict_can_be_rejected(settings: Settings, run_file: Path) -> None:
    taught(settings)
    ctx = open_context(load(run_file, ["curation.require_true_verdict=true"]))
    summary = make_curated(ctx)
    rows = [row for row in audited(CHAINS) if row.refinement_correct]
    false = {r.draft_id for r in rows if r.verdict and (r.verdict == "right") != r.draft_correct}
    assert 0 < len(false) < len(rows)
    kept = {key for key, row in read_curated(ctx).items() if row.rejected is None}
    assert kept == {row.draft_id for row in rows} - false
    assert summary["rejected"] == {"refinement_wrong": 2, "verdict_false": len(false)}
