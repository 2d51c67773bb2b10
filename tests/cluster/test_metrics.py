"""A run's figures on Ray's Prometheus port, beside what the run committed."""

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from cgd_ray.pipeline.run import examples, generate, opened
from cgd_ray.records import Critique, CuratedRow, Draft, Refinement
from cgd_ray.runtime import ray_session
from cgd_ray.settings import load
from cgd_ray.shards import read_failures, read_records
from cgd_ray.watching.catalogue import METRICS
from tests.support.tiny_student import tiny_student

RUN = """
[run]
name = "metered"
root = "{folder}/store"
work_dir = "{folder}/work"
[prompts]
train = "{folder}/prompts.jsonl"
test = "reasoning-gym:chain_sum"
num_test = 2
[student]
model = "{folder}/student"
max_model_len = 256
[sampling]
engine = "echo"
max_tokens = 64
rows_per_request = 8
[teacher]
backend = "echo"
[evaluate]
max_tokens = 64
"""
SAMPLE = re.compile(r"^(ray_cgd_\w+?)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
LIMIT_S = 20.0

Samples = dict[tuple[str, ...], float]


def samples(port: int) -> Samples:
    """Return what the node exports of ours, by name and the values of our labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    labels_of = {m.exported: m.labels for m in METRICS}
    found: Samples = {}
    for name, labels, value in SAMPLE.findall(text):
        known = dict(LABEL.findall(labels))
        key = (name, *(known[label] for label in labels_of[name]))
        found[key] = found.get(key, 0.0) + float(value)
    return found


def until(port: int, condition: Callable[[Samples], bool]) -> Samples:
    """Return what is exported once a condition holds, or at the limit."""
    deadline = time.monotonic() + LIMIT_S
    while not condition(found := samples(port)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def test_what_is_exported_is_what_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [f"{n} + {n + 1} - 3 =" for n in range(20)]
    problems.append("too long " * 400)
    rows = [json.dumps({"prompt": problem, "answer": "0"}) for problem in problems]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    (tmp_path / "run.toml").write_text(RUN.format(folder=tmp_path))
    tiny_student(tmp_path / "student")
    settings = load(tmp_path / "run.toml")
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    with ray_session(4):
        port = ray.nodes()[0]["MetricsExportPort"]
        generate(settings)
        # No echoed refinement is right: all are rejected, and there is nothing to pack.
        with pytest.raises(Exception, match="no examples: 0 chains kept"):
            examples(settings)
        rejected = ("ray_cgd_rows_total", "metered", "curation", "rejected")
        found = until(port, lambda found: found.get(rejected, 0) >= 20)
    with opened(settings) as ctx:
        drafts = read_records(ctx.store, ctx.folders.drafts, Draft)
        critiques = read_records(ctx.store, ctx.folders.refinements, Critique)
        refined = read_records(ctx.store, ctx.folders.refinements, Refinement)
        curated = read_records(ctx.store, ctx.folders.curated, CuratedRow)
        lost = read_failures(ctx.store, ctx.folders.drafts, drafts)
    assert (len(drafts), len(lost), len(refined)) == (20, 1, 20)

    def value(name: str, *labels: str) -> float:
        return found[(f"ray_{name}", "metered", *labels)]

    assert value("cgd_rows_total", "prompts", "ok") == len(problems) + 2
    assert value("cgd_rows_total", "drafts", "ok") == len(drafts)
    assert value("cgd_rows_total", "drafts", "failed") == len(lost)
    assert value("cgd_rows_total", "teacher", "ok") == len(refined)
    assert value("cgd_rows_total", "curation", "rejected") == len(curated)
    assert value("cgd_stage_rows", "drafts") == value("cgd_stage_rows_expected", "drafts") == 21
    assert value("cgd_stage_rows", "teacher") == value("cgd_stage_rows_expected", "teacher")
    assert value("cgd_sampler_tokens_total", "generated") == sum(
        draft.num_tokens for draft in drafts.values()
    )
    answers = [*critiques.values(), *refined.values()]
    assert value("cgd_teacher_calls_total", "ok") == len(answers)
    assert value("cgd_teacher_tokens_total", "generated") == sum(
        answer.num_output_tokens for answer in answers
    )
    assert value("cgd_teacher_rows_waiting") == value("cgd_teacher_calls_in_flight") == 0
    assert value("cgd_teacher_spent_dollars") == 0  # echo is free
