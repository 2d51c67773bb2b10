"""Settings: one TOML file and dotted overrides, every mistake told in one line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from cgd_ray.errors import UserError
from cgd_ray.settings import Section, Settings, load, parse, setting_paths

RUNS = sorted((Path(__file__).parents[2] / "jobs/runs").rglob("*.toml"))
SMALLEST = {
    "run": {"name": "r", "root": "here"},
    "prompts": {"train": "a.jsonl", "test": "b.jsonl"},
}


def refusal(*overrides: str, run: Path = RUNS[0]) -> str:
    with pytest.raises(UserError) as raised:
        load(run, overrides)
    return str(raised.value)


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.stem)
def test_every_shipped_run_file_loads(run: Path) -> None:
    assert load(run).run.name


def test_setting_paths_are_pinned(golden: Callable[[str, str], None]) -> None:
    golden("setting_paths.txt", "\n".join(setting_paths()) + "\n")


def test_every_setting_says_what_it_is() -> None:
    def undocumented(section: type[Section], prefix: str = "") -> list[str]:
        found: list[str] = []
        for name, field in section.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, Section):
                found += undocumented(inner, f"{prefix}{name}.")
            elif not (field.description or "").strip():
                found.append(prefix + name)
        return found

    assert undocumented(Settings) == []


def test_overrides_are_read_as_toml() -> None:
    settings = parse(SMALLEST, "test")
    assert settings.train.learning_rate != 1e-3
    changed = load(
        RUNS[0],
        [
            "train.learning_rate=1e-3",
            "train.max_steps=7",
            "student.model=Qwen/Qwen3-0.6B",
            "curation.require_wrong_draft=true",
            "prompts.columns.solution=none",
            "prompts.options={min_terms=3}",
            "prompts.options.max_terms=5",
            'run.name="quoted"',
            "evaluate.base_url=http://a/v1?x=y",
        ],
    )
    assert changed.train.learning_rate == 1e-3
    assert changed.train.max_steps == 7
    assert changed.student.model == "Qwen/Qwen3-0.6B"
    assert changed.curation.require_wrong_draft is True
    assert changed.prompts.columns.solution is None
    assert changed.prompts.options == {"min_terms": 3, "max_terms": 5}
    assert changed.run.name == "quoted"
    assert changed.evaluate.base_url == "http://a/v1?x=y"


def test_the_last_override_wins() -> None:
    assert load(RUNS[0], ["train.num_epochs=3", "train.num_epochs=4"]).train.num_epochs == 4


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "sampling.temprature=1",
            "unknown setting sampling.temprature; did you mean sampling.temperature?",
        ),
        ("train.lr=1", "unknown setting train.lr"),
        (
            "prompts.columns.refrence=x",
            "unknown setting prompts.columns.refrence; did you mean prompts.columns.reference?",
        ),
        ("nonsense=1", "unknown setting nonsense"),
        ("train.num_epochs=0", "train.num_epochs=0: input should be greater than or equal to 1"),
        ("train.num_epochs=many", "train.num_epochs='many': input should be a valid integer"),
        ("examples.objective=dpo", "examples.objective='dpo': input should be 'sft',"),
        ("run.name=a/b", "run.name='a/b': string should match pattern"),
        ("run.root=none", "run.root: input should be a valid string"),
        ("learning_rate", "override 'learning_rate' is not of the form section.setting=value"),
        ("train.=1", "override 'train.=1' is not of the form section.setting=value"),
        ("run.name.first=1", "override 'run.name.first=1': 'name' is a value, not a section"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(override: str, said: str) -> None:
    message = refusal(override)
    assert said in message
    assert "\n" not in message
    assert "errors.pydantic.dev" not in message


def test_several_mistakes_are_told_together() -> None:
    message = refusal("train.num_epochs=0", "sampling.temprature=1")
    assert "train.num_epochs=0" in message
    assert "sampling.temprature" in message
    assert message.startswith(str(RUNS[0]))


def test_a_missing_required_setting_is_named() -> None:
    with pytest.raises(UserError, match=r"run\.root is required and not set"):
        parse({**SMALLEST, "run": {"name": "r"}}, "test")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["prompts.num_train=none"], "prompts.num_train must be set for a generated source"),
        (["prompts.num_test=none"], "prompts.num_test must be set for a generated source"),
        (["prompts.train=a.jsonl"], "prompts.test must name a file when prompts.train does"),
        (
            ["sampling.min_replicas=3", "sampling.max_replicas=2"],
            "sampling.max_replicas=2 is below sampling.min_replicas=3",
        ),
        (
            ["train.num_workers=2", "train.batches_per_step=3"],
            "train.batches_per_step=3 is not a multiple of train.num_workers=2",
        ),
        (
            ["sampling.max_tokens=1024"],
            "sampling.max_tokens=1024 leaves no room for the prompt in student.max_model_len=1024",
        ),
        (["evaluate.max_tokens=1024"], "evaluate.max_tokens=1024 leaves no room for the prompt"),
        (["serve.tls_certfile=a.pem"], "serve.tls_certfile and serve.tls_keyfile must be set"),
        (["serve.min_replicas=3"], "serve.max_replicas=1 is below serve.min_replicas=3"),
        (["serve.models={'a b'='base'}"], "serve.models: 'a b' is no model id"),
        (["serve.models={}"], "serve.models: dictionary should have at least 1 item"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], said: str) -> None:
    assert said in refusal(*overrides)


def test_a_file_source_with_a_generated_test_needs_its_number() -> None:
    data = {**SMALLEST, "prompts": {"train": "a.jsonl", "test": "reasoning-gym:chain_sum"}}
    with pytest.raises(UserError, match=r"prompts\.num_test must be set"):
        parse(data, "test")


def test_settings_are_frozen() -> None:
    settings = parse(SMALLEST, "test")
    with pytest.raises(ValidationError):
        settings.train.num_epochs = 9  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.train = settings.train  # type: ignore[misc]


def test_unreadable_run_files_are_named(tmp_path: Path) -> None:
    assert f"cannot read run file {tmp_path}/no.toml" in refusal(run=tmp_path / "no.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[run\nname=1")
    assert f"run file {broken} is not valid TOML" in refusal(run=broken)
    broken.write_bytes(b"name = '\xff'")
    assert f"run file {broken} is not valid TOML" in refusal(run=broken)


def test_the_command_line_loads_nothing_heavy_before_it_works() -> None:
    code = (
        "import sys, cgd_ray.cli, cgd_ray.plan\n"
        "heavy = {'torch', 'ray', 'transformers', 'boto3', 'pyarrow', 'deepspeed', 'vllm'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
