"""Every supported family: examples, training under ZeRO-3 on two workers, export, vLLM's logits.

Models are tiny and random, in float32, so that what is compared differs by rounding alone.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig

from cgd_ray.examples.objectives import build_example
from cgd_ray.examples.packing import pack
from cgd_ray.records import Example
from cgd_ray.settings import LoraSettings, TrainSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import LocalStore
from cgd_ray.student import chat_tokenizer
from cgd_ray.training.families import check_student
from cgd_ray.training.task import TrainTask
from tests.support.engine_logits import engine_logits
from tests.support.records import chain
from tests.support.tiny_families import FAMILIES, tiny_family
from tests.support.training_group import engine_probe, train_all

REPO = Path(__file__).resolve().parents[2]
LORA = "llama-lora"
NAMES = [*FAMILIES, LORA]
ADAPTERS = LoraSettings(rank=4, alpha=16, dropout=0.1)
# Other ways to the same weights: which, and how.
WAYS: dict[str, tuple[str, dict[str, object]]] = {
    "llama-2-offload": ("llama", {"zero_stage": 2, "offload_optimizer": True}),
    "llama-3-offload": ("llama", {"offload_optimizer": True, "offload_parameters": True}),
    "llama-lora-0": (LORA, {"zero_stage": 0, "lora": ADAPTERS}),
    "llama-lora-1": (LORA, {"zero_stage": 1, "lora": ADAPTERS, "gradient_checkpointing": True}),
    "llama-lora-2": (LORA, {"zero_stage": 2, "lora": ADAPTERS, "offload_optimizer": True}),
}
PROBE = np.random.default_rng(3).integers(5, 100, 40).tolist()  # far longer than a window
ROUNDING = 1e-3  # of logits with a standard deviation of about 2; what is found is 1e-5
MOVED = 0.1  # what two steps change at least
BF16 = {f"llama-lora-bf16-{stage}": {"zero_stage": stage} for stage in range(4)}


def words(draw: np.random.Generator, most: int) -> str:
    return " ".join(f"w{n}" for n in draw.integers(5, 90, int(draw.integers(8, most))))


def make_examples(root: Path, source: Path) -> None:
    """Pack documents that are longer than the tiny models' windows."""
    draw, tokenizer = np.random.default_rng(7), chat_tokenizer(str(source))
    made = [
        build_example("cgd", chain(*(words(draw, 20) for _ in range(4))), tokenizer, 192)
        for _ in range(12)
    ]
    examples = [example for example in made if isinstance(example, Example)]
    assert len(examples) == 12
    commit_shard(LocalStore(str(root)), "examples", pack(examples, 192, None))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, TrainTask]:
    """All families trained, one after another in one group of workers."""
    root = tmp_path_factory.mktemp("store")
    students = tmp_path_factory.mktemp("students")
    for name in FAMILIES:
        source = str(tiny_family(name, students / name))
        check_student(source, 192, LoraSettings())
    make_examples(root, students / "llama")
    wanted = {name: {} for name in FAMILIES} | {LORA: {"lora": ADAPTERS}}
    wanted |= {way: how for way, (_, how) in WAYS.items()}
    wanted |= {n: {"dtype": "bfloat16", "lora": ADAPTERS, **how} for n, how in BF16.items()}
    tasks: dict[str, TrainTask] = {}
    for name, settings in wanted.items():
        source = str(students / name.partition("-")[0])
        train = TrainSettings(
            **{
                "dtype": "float32",
                "num_workers": 2,
                "zero_stage": 3,
                "batches_per_step": 2,
                "max_steps": 2,
                "learning_rate": 1e-2,
                **settings,
            }
        )
        tasks[name] = TrainTask(train, 1, source, str(root), "examples", name, "card", False, 1)
    train_all(list(tasks.values()), 2, PROBE)
    return tasks


def exported(task: TrainTask) -> Path:
    return Path(task.root) / task.folder / "model"


def logits(folder: Path | str) -> np.ndarray:
    """Return the logits of a folder by transformers' own attention."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([PROBE])).logits[0].numpy()


@pytest.fixture(scope="module")
def served(world) -> dict[str, np.ndarray]:
    """vLLM's logits of all exported folders, from one process."""
    found = engine_logits({exported(world[name]): PROBE for name in NAMES}, "float32")
    return dict(zip(NAMES, found.values(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_export_is_what_was_trained_and_what_vllm_serves(world, served, name):
    task = world[name]
    reloaded = logits(exported(task))
    assert np.abs(engine_probe(task) - reloaded).max() <= ROUNDING, "the training engine"
    assert np.abs(served[name] - reloaded[:-1]).max() <= ROUNDING, "vLLM"
    assert np.abs(reloaded - logits(task.source)).max() >= MOVED, "training did something"


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_folder_is_whole(world, name):
    folder = exported(world[name])
    assert (folder / "chat_template.jinja").is_file()
    assert (folder / "README.md").read_text() == "card"
    assert GenerationConfig.from_pretrained(folder).eos_token_id == 2
    assert not list(folder.glob("*adapter*"))


@pytest.mark.parametrize("way", WAYS)
def test_stages_and_offloads_lead_to_the_same_weights(world, way):
    one, other = (
        load_file(exported(world[name]) / "model.safetensors") for name in (way, WAYS[way][0])
    )
    assert one.keys() == other.keys()
    assert max((one[k] - other[k]).abs().max().item() for k in one) <= 1e-4


@pytest.mark.parametrize("name", [LORA, *BF16])
def test_adapters_change_the_linear_layers_and_nothing_else(world, name):
    task = world[name]
    dtype = getattr(torch, task.train.dtype)
    before = load_file(Path(task.source) / "model.safetensors")
    after = load_file(exported(task) / "model.safetensors")
    assert before.keys() == after.keys()
    assert {weight.dtype for weight in after.values()} == {dtype}
    for key, weight in before.items():
        assert torch.equal(weight.to(dtype), after[key]) != key.endswith("_proj.weight"), key


def test_trl_takes_the_export_unchanged_for_grpo(world, tmp_path):
    """A warm start for reinforcement learning (issue "Science")."""
    pytest.importorskip("trl", reason="pip install trl, as requirements/dev.txt pins it")
    command = [sys.executable, "-m", "tests.support.grpo_steps", exported(world["llama"])]
    done = subprocess.run([*command, tmp_path], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["before"] == 0 and told["after"] > 1e-3
    assert len(told["rewards"]) == 2


def test_a_loss_that_is_not_finite_stops_all_workers_and_names_the_examples(world):
    train = world["llama"].train.model_copy(update={"learning_rate": 1e30, "max_steps": 4})
    broken = dataclasses.replace(world["llama"], folder="broken", train=train)
    with pytest.raises(AssertionError, match=r"UserError: the loss of step 2 is nan.*p/0#cgd"):
        train_all([broken], 2, PROBE)
    assert not (Path(broken.root) / "broken" / "model").exists()
