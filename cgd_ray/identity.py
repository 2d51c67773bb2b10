"""Content-addressed names: ids of prompts, fingerprints of stages, folders of artefacts.

A stage's folder is its name and a hash of what its output depends on: its own settings, its
templates and the folders it reads. A changed critique template leaves the drafts' folder as it is.
"""

import hashlib
import json
import unicodedata
from dataclasses import dataclass

from cgd_ray import audit
from cgd_ray.examples import objectives
from cgd_ray.sampling import draft
from cgd_ray.settings import Section, Settings
from cgd_ray.teacher import again, critique, refinement, single


def content_id(text: str) -> str:
    """Return the id of a prompt: 16 hex digits of the SHA-256 of its normalised text."""
    normal = unicodedata.normalize("NFC", text).strip()
    return hashlib.sha256(normal.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fingerprint(*parts: object) -> str:
    """Return 12 hex digits that change when any part does. Parts must be JSON values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


_DRAWS = "prompts/v3"  # how sources become stored prompts


@dataclass(frozen=True, slots=True)
class StageFolders:
    """Key prefix of each stage's artefacts, relative to `run.root`."""

    prompts: str
    drafts: str
    refinements: str
    curated: str
    examples: str
    checkpoint: str
    scores: str
    base_scores: str  # the untrained model's, which all students of the same test prompts share
    report: str


def stage_folders(
    settings: Settings,
    source_versions: tuple[str, ...],
    retries: int = 0,
    start: str | None = None,
    task_versions: tuple[str, ...] = (),
) -> StageFolders:
    """Return where each stage of one round of this run keeps its output.

    Settings that change speed but not content (replicas, actors, timeouts, ports) do not count.

    Args:
        settings: the run's settings.
        source_versions: what the prompt files contain, as `prompts.sources.source_versions` says.
        retries: times that failed rows were tried again: what follows may see more rows each time.
        start: checkpoint folder of the round before, whose student drafts and is trained further;
            None: the first round, which starts from `student.model`.
        task_versions: what the files of evaluation tasks contain, as
            `evaluation.loading.task_versions` says.
    """
    s = settings

    def name(stage: str, *parts: object) -> str:
        return f"{stage}-{fingerprint(stage, *parts)}"

    prompts = name("prompts", _DRAWS, _part(s.prompts), list(source_versions), s.run.seed)
    drafts = name(
        "drafts",
        prompts,
        draft.TEMPLATE,
        [s.student.model, s.student.max_model_len, s.run.seed, *([start] if start else [])],
        _part(s.sampling, "engine", "num_drafts", "temperature", "top_p", "max_tokens"),
    )
    refinements = name("refinements", drafts, *_teaching(s))
    rules = _rules(s)
    curated = name("curated", refinements, rules, *([retries] if retries else []))
    chosen = _part(s.examples)
    if s.examples.max_chains is None:  # so that older artefacts keep their names
        chosen.pop("max_chains")
    examples = name("examples", curated, objectives.TEMPLATE, chosen, _part(s.packing), s.run.seed)
    train = s.train.model_dump(mode="json", exclude=set(s.train.SPEED_ONLY))
    if s.train.seed in (None, s.run.seed):
        train.pop("seed")
    checkpoint = name("checkpoint", examples, train)
    problems = ("tasks", "data_dir", "num_problems", "methods", "base_model", "student_model")
    answers = ("temperature", "top_p", "max_tokens", "num_resamples")
    asked = _part(s.evaluate, *problems, *answers)
    scores = name("scores", checkpoint, prompts, asked, s.student.max_model_len, *task_versions)
    untrained = s.student.model, s.student.max_model_len
    base_scores = name("base-scores", prompts, asked, *untrained, *task_versions)
    report = name("report", scores, s.run.name, _part(s.report))
    return StageFolders(
        prompts, drafts, refinements, curated, examples, checkpoint, scores, base_scores, report
    )


def _teaching(s: Settings) -> tuple[object, ...]:
    """Return what critiques and refinements depend on besides the drafts."""
    two = [critique.TEMPLATE, refinement.TEMPLATE]
    if s.curation.leakage == "regenerate":
        two.append(again.TEMPLATE)
    templates = two if s.teacher.turns == 2 else [single.TEMPLATE]
    lengths = ("critique_max_tokens", "refinement_max_tokens")
    teacher = _part(s.teacher, "backend", "model", "turns", "temperature", *lengths)
    return templates, teacher, s.local.tutor_reveal if s.local.tutor else None


def _rules(s: Settings) -> dict[str, object]:
    """Return the rules for what training may use; those that are off do not count."""
    rules = _part(s.curation, "require_correct_refinement", "require_wrong_draft")
    if s.curation.judges_critiques:
        rules |= {"audit": audit.VERSION, **_part(s.curation, "leakage", "min_specificity")}
    if s.curation.require_true_verdict:
        rules["require_true_verdict"] = True
    return rules


def _part(section: Section, *names: str) -> dict[str, object]:
    """Return a section as JSON values; with names, only those settings."""
    return section.model_dump(mode="json", include=set(names) if names else None)
