"""Content-addressed folders: what changes a stage, and what must not."""

from collections.abc import Callable
from dataclasses import asdict
from unittest.mock import patch

import pytest

from cgd_ray.examples import objectives
from cgd_ray.identity import StageFolders, content_id, fingerprint, stage_folders
from cgd_ray.sampling import draft
from cgd_ray.settings import Settings, setting_paths
from cgd_ray.teacher import critique, refinement

# One after the other; the untrained model's scores stand aside.
STAGES = tuple(name for name in StageFolders.__dataclass_fields__ if name != "base_scores")
BASE = (
    "train.batches_per_step=4",
    "train.zero_stage=3",
    "serve.tls_certfile=a.pem",
    "serve.tls_keyfile=a.key",
)

# Every setting: another value, and the first stage whose output it changes (None: none at all).
EFFECT: dict[str, tuple[str, str | None]] = {
    "run.name": ("other", "report"),
    "run.root": ("elsewhere", None),
    "run.work_dir": ("elsewhere", None),
    "run.seed": ("2", "prompts"),
    "run.num_cpus": ("3", None),
    "run.lease_s": ("9", None),
    "run.rounds": ("2", None),
    "local.s3_server": ("false", None),
    "local.tutor": ("false", "refinements"),
    "local.tutor_reveal": ("answer", "refinements"),
    "prompts.train": ("reasoning-gym:basic_arithmetic", "prompts"),
    "prompts.test": ("reasoning-gym:basic_arithmetic", "prompts"),
    "prompts.num_train": ("200", "prompts"),
    "prompts.num_test": ("100", "prompts"),
    "prompts.columns.prompt": ("question", "prompts"),
    "prompts.columns.reference": ("gold", "prompts"),
    "prompts.columns.solution": ("none", "prompts"),
    "prompts.options": ("{min_terms=3}", "prompts"),
    "prompts.on_duplicate": ("first", "prompts"),
    "prompts.shape": ("columns", "prompts"),
    "prompts.columns.conversation": ("turns", "prompts"),
    "prompts.system_message": ("drop", "prompts"),
    "prompts.multi_turn": ("first", "prompts"),
    "prompts.max_characters": ("100", "prompts"),
    "prompts.near_duplicates": ("0.8", "prompts"),
    "prompts.decontaminate": ("[]", "prompts"),
    "prompts.ngram_words": ("8", "prompts"),
    "prompts.min_overlap": ("0.8", "prompts"),
    "student.model": ("other/model", "drafts"),
    "student.max_model_len": ("900", "drafts"),
    "student.num_parameters": ("1e9", None),
    "sampling.engine": ("echo", "drafts"),
    "sampling.accelerator": ("cpu", None),
    "sampling.num_drafts": ("2", "drafts"),
    "sampling.temperature": ("0.1", "drafts"),
    "sampling.top_p": ("0.5", "drafts"),
    "sampling.max_tokens": ("64", "drafts"),
    "sampling.min_replicas": ("1", None),
    "sampling.max_replicas": ("4", None),
    "sampling.tensor_parallel_size": ("2", None),
    "sampling.pipeline_parallel_size": ("2", None),
    "sampling.num_gpus": ("0.5", None),
    "sampling.max_attempts": ("5", None),
    "sampling.max_num_seqs": ("8", None),
    "sampling.rows_per_request": ("8", None),
    "sampling.kv_cache_gib": ("5", None),
    "teacher.backend": ("anthropic", "refinements"),
    "teacher.base_url": ("http://elsewhere/v1", None),
    "teacher.model": ("another", "refinements"),
    "teacher.api_key_env": ("OTHER", None),
    "teacher.api_key_file": ("file", None),
    "teacher.region": ("eu-west-1", None),
    "teacher.mode": ("batch", None),
    "teacher.turns": ("1", "refinements"),
    "teacher.temperature": ("0.5", "refinements"),
    "teacher.critique_max_tokens": ("99", "refinements"),
    "teacher.refinement_max_tokens": ("99", "refinements"),
    "teacher.num_actors": ("3", None),
    "teacher.max_in_flight": ("3", None),
    "teacher.max_requests_per_minute": ("3", None),
    "teacher.max_tokens_per_minute": ("3", None),
    "teacher.timeout_s": ("3", None),
    "teacher.max_attempts": ("3", None),
    "teacher.max_retry_share": ("3", None),
    "teacher.max_usd": ("3", None),
    "teacher.usd_per_million_input_tokens": ("3", None),
    "teacher.usd_per_million_cached_tokens": ("3", None),
    "teacher.usd_per_million_output_tokens": ("3", None),
    "teacher.allow_private_address": ("true", None),
    "curation.require_correct_refinement": ("false", "curated"),
    "curation.require_wrong_draft": ("true", "curated"),
    "curation.leakage": ("mask", "curated"),
    "curation.min_specificity": ("0.1", "curated"),
    "curation.require_true_verdict": ("true", "curated"),
    "curation.num_processes": ("5", None),
    "examples.objective": ("cft", "examples"),
    "examples.critique_transform": ("shuffled", "examples"),
    "examples.critique_transform_share": ("0.5", "examples"),
    "examples.prompt_only_share": ("0.25", "examples"),
    "examples.max_chains": ("100", "examples"),
    "examples.on_too_long": ("cut_draft", "examples"),
    "packing.sequence_length": ("512", "examples"),
    "packing.max_documents": ("1", "examples"),
    "train.num_workers": ("2", None),
    "train.accelerator": ("cpu", None),
    "train.zero_stage": ("2", None),
    "train.batches_per_step": ("8", "checkpoint"),
    "train.num_epochs": ("5", "checkpoint"),
    "train.max_steps": ("5", "checkpoint"),
    "train.seed": ("5", "checkpoint"),
    "train.learning_rate": ("1e-6", "checkpoint"),
    "train.warmup_ratio": ("0.5", "checkpoint"),
    "train.weight_decay": ("0.5", "checkpoint"),
    "train.max_grad_norm": ("0.5", "checkpoint"),
    "train.dtype": ("float32", "checkpoint"),
    "train.gradient_checkpointing": ("true", None),
    "train.offload_optimizer": ("true", None),
    "train.offload_parameters": ("true", None),
    "train.liger": ("off", None),
    "train.lora.rank": ("8", "checkpoint"),
    "train.lora.alpha": ("16", "checkpoint"),
    "train.lora.dropout": ("0.1", "checkpoint"),
    "train.lora.targets": ('["q_proj"]', "checkpoint"),
    "train.checkpoint_every_steps": ("7", None),
    "train.keep_checkpoints": ("5", None),
    "train.max_failures": ("1", None),
    "train.resize_every_s": ("9", None),
    "train.shuffle_window_rows": ("2048", "checkpoint"),
    "train.prefetch_batches": ("2", None),
    "train.data_cache_gib": ("2", None),
    "train.trackers": ("[]", None),
    "train.tracking_project": ("other", None),
    "train.peak_tflops": ("100", None),
    "serve.host": ("0.0.0.0", None),
    "serve.port": ("8001", None),
    "serve.models": ("{one='folder'}", None),
    "serve.accelerator": ("cpu", None),
    "serve.tensor_parallel_size": ("2", None),
    "serve.min_replicas": ("1", None),
    "serve.max_replicas": ("2", None),
    "serve.target_requests": ("2", None),
    "serve.kv_cache_gib": ("2", None),
    "serve.api_keys_file": ("keys", None),
    "serve.api_keys_env": ("OTHER", None),
    "serve.max_body_bytes": ("2048", None),
    "serve.max_tokens": ("64", None),
    "serve.max_choices": ("2", None),
    "serve.max_in_flight": ("2", None),
    "serve.retry_after_s": ("2", None),
    "serve.request_timeout_s": ("2", None),
    "serve.body_timeout_s": ("2", None),
    "serve.drain_s": ("2", None),
    "serve.structured_outputs": ("true", None),
    "serve.cors_origins": ("['https://a.example']", None),
    "serve.tls_certfile": ("other.pem", None),
    "serve.tls_keyfile": ("other.key", None),
    "serve.playground": ("false", None),
    "evaluate.tasks": ('["gsm8k"]', "scores"),
    "evaluate.data_dir": ("elsewhere", "scores"),
    "evaluate.num_problems": ("50", "scores"),
    "evaluate.methods": ('["self_refine_1"]', "scores"),
    "evaluate.temperature": ("0.6", "scores"),
    "evaluate.top_p": ("0.9", "scores"),
    "evaluate.base_url": ("http://elsewhere/v1", None),
    "evaluate.base_model": ("other", "scores"),
    "evaluate.student_model": ("other", "scores"),
    "evaluate.api_key_env": ("OTHER_KEY", None),
    "evaluate.allow_code_execution": ("true", None),
    "evaluate.max_tokens": ("64", "scores"),
    "evaluate.max_in_flight": ("3", None),
    "evaluate.timeout_s": ("3", None),
    "evaluate.num_resamples": ("500", "scores"),
    "report.num_rows": ("5", "report"),
    "cluster.image": ("other", None),
    "cluster.namespace": ("other", None),
    "cluster.region": ("eu-west-1", None),
    "cluster.account": ('"111111111111"', None),
    "cluster.role": ("other", None),
    "cluster.machine_image": ("ami-1", None),
    "cluster.ssh_user": ("other", None),
    "cluster.head_instance": ("m7i.large", None),
    "cluster.teacher_instance": ("m7i.large", None),
    "cluster.sampler_instance": ("g6e.xlarge", None),
    "cluster.trainer_instance": ("p5.48xlarge", None),
    "cluster.server_instance": ("g6e.xlarge", None),
    "cluster.spot_samplers": ("false", None),
    "cluster.idle_minutes": ("9", None),
    "cluster.machines": ('["a", "b"]', None),
    "cluster.queue": ("other", None),
    "cluster.priority_class": ("other", None),
}


def changed(before: StageFolders, after: StageFolders) -> list[str]:
    old, new = asdict(before), asdict(after)
    return [stage for stage in STAGES if old[stage] != new[stage]]


def test_every_setting_is_classified() -> None:
    assert set(EFFECT) == set(setting_paths())


@pytest.mark.parametrize("path", EFFECT)
def test_a_setting_changes_its_stage_and_all_that_follow(
    path: str, demo: Callable[..., Settings]
) -> None:
    value, first = EFFECT[path]
    before = stage_folders(demo(*BASE), ())
    after = stage_folders(demo(*BASE, f"{path}={value}"), ())
    assert changed(before, after) == list(STAGES[STAGES.index(first) :] if first else ())


@pytest.mark.parametrize(
    ("module", "first"),
    [
        (draft, "drafts"),
        (critique, "refinements"),
        (refinement, "refinements"),
        (objectives, "examples"),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_new_template_version_leaves_what_came_before(
    module: object, first: str, demo: Callable[..., Settings]
) -> None:
    before = stage_folders(demo(), ())
    with patch.object(module, "TEMPLATE", "other/v9"):
        after = stage_folders(demo(), ())
    assert changed(before, after) == list(STAGES[STAGES.index(first) :])


def test_changed_prompt_files_change_everything(demo: Callable[..., Settings]) -> None:
    before = stage_folders(demo(), ("a.jsonl:10-1",))
    assert changed(before, stage_folders(demo(), ("a.jsonl:10-2",))) == list(STAGES)
    assert before == stage_folders(demo(), ("a.jsonl:10-1",))


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("train.seed=2", True),
        ("examples.objective=cft", True),
        ("teacher.model=another", True),
        ("sampling.temperature=0.1", True),
        ("prompts.num_test=100", False),
        ("evaluate.max_tokens=64", False),
        ("student.model=other/model", False),
        ("student.max_model_len=900", False),
    ],
)
def test_students_of_one_base_share_its_scores(
    override: str, same: bool, demo: Callable[..., Settings]
) -> None:
    before, after = (stage_folders(demo(*more), ()) for more in ((), (override,)))
    assert (before.base_scores == after.base_scores) is same


def test_the_reveal_of_a_tutor_that_is_off_does_not_count(demo: Callable[..., Settings]) -> None:
    off = stage_folders(demo("local.tutor=false"), ())
    assert off == stage_folders(demo("local.tutor=false", "local.tutor_reveal=answer"), ())


def test_a_round_starts_from_the_student_of_the_one_before(demo: Callable[..., Settings]) -> None:
    first = stage_folders(demo(), ())
    second = stage_folders(demo(), (), start=first.checkpoint)
    assert changed(first, second) == list(STAGES[STAGES.index("drafts") :])
    assert second != stage_folders(demo(), (), start=second.checkpoint)


def test_folders_are_named_after_their_stage(demo: Callable[..., Settings]) -> None:
    for stage, folder in asdict(stage_folders(demo(), ())).items():
        name, _, digits = folder.rpartition("-")
        assert name.replace("-", "_") == stage
        assert len(digits) == 12
        assert set(digits) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is 2 + 3?", "1ea26256ebae2e04"),
        ("caf\u00e9", "850f7dc43910ff89"),
        ("", "e3b0c44298fc1c14"),
    ],
)
def test_content_ids_never_change(text: str, expected: str) -> None:
    assert content_id(text) == expected


def test_content_ids_see_through_spelling_alone() -> None:
    assert content_id("cafe\u0301") == content_id("caf\u00e9") == content_id(" caf\u00e9\n")
    assert content_id("Cafe") != content_id("cafe")
    assert content_id("a  b") != content_id("a b")
    assert content_id("\ud800") != content_id("\ud801")


def test_a_fingerprint_depends_on_order_and_place_not_on_key_order() -> None:
    assert fingerprint("a", "b") != fingerprint("b", "a")
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(["a"], "b") != fingerprint(["a", "b"])
    assert fingerprint(1) != fingerprint("1")
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint("a", {"b": [1, None]}) == "3c34dee95209"


def test_draft_ids_and_seeds_never_change() -> None:
    assert draft.draft_id("00ff", 3) == "00ff/3"
    assert draft.draft_seed("00ff/3", 1) == 1303868043
    assert draft.draft_seed("00ff/3", 2) != draft.draft_seed("00ff/3", 1)
    assert all(0 <= draft.draft_seed(f"{i}", 1) < 2**31 for i in range(1000))
