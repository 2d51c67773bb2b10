"""`cgd audit`: what a run's critiques are worth, from its artefacts alone.

Rows and figures are kept beside the run's artefacts; the same command again reads them. Nothing of
the run itself is changed, and no teacher is asked.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cgd_ray.audit import VERSION, alone
from cgd_ray.audit.alone import alone_figures, alone_probes
from cgd_ray.audit.chart import entropy_chart
from cgd_ray.audit.gain import GAIN, TargetReading, entropy_by_part, gain_figures, probes
from cgd_ray.audit.judge import judge_figures
from cgd_ray.audit.page import audit_page
from cgd_ray.audit.rows import AuditRow, audit_rows
from cgd_ray.audit.summary import AuditSummary, Figure, summarise
from cgd_ray.errors import UserError
from cgd_ray.evaluation.grader_pool import GraderPool
from cgd_ray.examples import objectives
from cgd_ray.examples.objectives import Chain
from cgd_ray.identity import fingerprint
from cgd_ray.noise import say
from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.curate import read_taught
from cgd_ray.pipeline.models import trained_model
from cgd_ray.pipeline.names import AUDIT, ENTROPY
from cgd_ray.pipeline.rounds import starting_student
from cgd_ray.pipeline.run import opened
from cgd_ray.pipeline.stages import require
from cgd_ray.settings import Settings
from cgd_ray.shards import commit_shard, mark_complete, read_complete, read_records

Model = Literal["base", "student"]
_SHARD_ROWS = 1024
_MAX_CONTEXT = 4_096  # tokens that the student is made to read at once


@dataclass(frozen=True, slots=True)
class Gain:
    """What reading the refinements, and their answers behind a critique alone, told."""

    model: Model
    num_chains: int
    figures: tuple[Figure, ...]
    readings: tuple[TargetReading, ...]


def audit(
    settings: Settings, *, information_gain: int, model: Model, json: bool, judge: int = 0
) -> None:
    """Print what a run's critiques are worth, and keep the rows.

    Args:
        settings: of the run.
        information_gain: chains whose refinements the student reads; 0: none.
        model: which student reads.
        json: print one JSON object instead of the page.
        judge: chains whose critiques the teacher judges; 0: none.

    Raises:
        UserError: the refinements are not finished, there are none, or the student is missing.
    """
    for option, number in (("information-gain", information_gain), ("judge", judge)):
        if number < 0:
            raise UserError(f"--{option}={number} must be 0 (off) or more")
    with opened(settings) as ctx:
        require(ctx, "refinements")
        chains = read_taught(ctx)
        if not chains:
            raise UserError("the run has no refinement to audit: see `cgd failures`")
        folder = f"audit-{fingerprint(VERSION, [chain.draft.id for chain in chains], _about(ctx))}"
        rows = _audited(ctx, folder, chains)
        summary = summarise(rows, settings.run.seed)
        judged = _judged(ctx, chains, rows, judge)
        gain = _read(ctx, folder, chains, rows, information_gain, model)
        kept = _keep(ctx, folder, summary, gain, judged)
    named = f"{settings.run.name}  {settings.run.root}/{folder}"
    if json:
        say(kept.read_text(encoding="utf-8").rstrip())
        return
    gains, reader = (gain.figures, gain.model) if gain else ((), "")
    say(audit_page(named, summary, (*judged, *gains), reader))
    say(f"\nfigures     {kept}")
    if gain:
        say(f"entropy     {kept.with_name(ENTROPY)}")


def _judged(
    ctx: RunContext, chains: Sequence[Chain], rows: Sequence[AuditRow], number: int
) -> tuple[Figure, ...]:
    if not number:
        return ()
    from cgd_ray.pipeline.judging import judge  # the teacher's clients, which figures do without

    return judge_figures(judge(ctx, chains, number), rows)


def _about(ctx: RunContext) -> list[str]:
    return [ctx.folders.prompts, ctx.folders.refinements]


def _audited(ctx: RunContext, folder: str, chains: Sequence[Chain]) -> list[AuditRow]:
    """Return the rows of all chains, made now unless they are stored."""
    if read_complete(ctx.store, folder) is not None:
        return list(read_records(ctx.store, folder, AuditRow).values())
    with ctx.progress.stage("audit", len(chains), "rows") as line:
        with GraderPool(ctx.settings.curation.num_processes) as pool:
            rows = audit_rows(chains, pool.grade_all)
        for start in range(0, len(rows), _SHARD_ROWS):
            commit_shard(ctx.store, folder, rows[start : start + _SHARD_ROWS])
            line.update(min(len(rows), start + _SHARD_ROWS))
    mark_complete(ctx.store, folder, {"rows": len(rows), "version": VERSION})
    return rows


def _read(
    ctx: RunContext,
    audited: str,
    chains: Sequence[Chain],
    rows: Sequence[AuditRow],
    number: int,
    model: Model,
) -> Gain | None:
    """Let the student read the refinements of some chains, without those known to be wrong."""
    if not number:
        return None
    # Kept out of the top: torch and transformers take seconds, and the figures do without.
    from cgd_ray.audit.student import load_reader, read_targets
    from cgd_ray.student import chat_tokenizer, model_context

    source = starting_student(ctx) if model == "base" else str(trained_model(ctx))
    wrong = {row.draft_id for row in rows if row.refinement_correct is False}
    usable = [chain for chain in chains if chain.draft.id not in wrong]
    limit = min(model_context(source) or _MAX_CONTEXT, _MAX_CONTEXT)
    seed = ctx.settings.run.seed
    tokenizer = chat_tokenizer(source)
    chosen = probes(usable, number, tokenizer, limit, seed)
    if not chosen:
        raise UserError(
            "--information-gain needs refinements of two prompts that are not wrong, of at most "
            f"{limit} tokens with their context; the run has none"
        )
    wanted = [probe for row in chosen for probe in row]
    wanted += alone_probes(usable, {p.draft_id for p in wanted}, tokenizer, limit, seed)
    folder = f"{audited}/gain-{_reader_id(ctx, model)}"
    known = read_records(ctx.store, folder, TargetReading)
    missing = [probe for probe in wanted if probe.key not in known]
    if missing:
        with ctx.progress.stage("information gain", len(missing), "readings") as line:
            done = 0
            for readings in read_targets(load_reader(source), missing):
                commit_shard(ctx.store, folder, readings)
                known |= {reading.key: reading for reading in readings}
                done += len(readings)
                line.update(done)
    found = tuple(known[probe.key] for probe in wanted)
    figures = (*gain_figures(found, seed), *alone_figures(found, seed))
    return Gain(model, len(chosen), figures, found)


def _reader_id(ctx: RunContext, model: Model) -> str:
    base = ctx.start or ctx.settings.student.model
    reader = base if model == "base" else ctx.folders.checkpoint
    asked = (objectives.TEMPLATE, alone.TEMPLATE)
    return fingerprint(GAIN, *asked, reader, ctx.settings.run.seed)


def _keep(
    ctx: RunContext,
    folder: str,
    summary: AuditSummary,
    gain: Gain | None,
    judged: Sequence[Figure],
) -> Path:
    """Write the figures and the plot to the store, and to where a person can open them."""
    figures = {
        "run": ctx.settings.run.name,
        "folder": f"{ctx.store.root}/{folder}",
        "chains": summary.num_chains,
        "with_reference": summary.num_with_reference,
        "drafts_right": summary.num_drafts_right,
        "figures": [asdict(figure) for figure in summary.figures],
        "judge": [asdict(figure) for figure in judged],
        "information_gain": gain
        and {
            "model": gain.model,
            "chains": gain.num_chains,
            "figures": [asdict(figure) for figure in gain.figures],
        },
    }
    files = {AUDIT: json.dumps(figures, indent=1) + "\n", **dict(_plot(ctx, gain))}
    local = ctx.work_dir / ctx.settings.run.name
    local.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        ctx.store.put(f"{folder}/{name}", text.encode())
        (local / name).write_text(text, encoding="utf-8")
    return local / AUDIT


def _plot(ctx: RunContext, gain: Gain | None) -> Iterator[tuple[str, str]]:
    if gain:
        title = (
            f"{ctx.settings.run.name}: entropy of the {gain.model} model over the refinement, "
            f"{gain.num_chains} chains"
        )
        yield ENTROPY, entropy_chart(title, entropy_by_part(gain.readings, ctx.settings.run.seed))
