"""Training speed and MFU on one GPU beside TRL and transformers, without Ray, in minutes.

A Llama of about 1.2 B random weights, rows of four documents of 4,096 tokens, the last third of
each a target, bfloat16. Each contender has a process of its own. Ours trains through DeepSpeed
where it is installed, with float32 master weights, and otherwise with torch's AdamW alone: the
result says which. `TRL_PYTHON` names an interpreter with trl, if this one has none.

    python -m benchmarks.train_gpu           # one GPU
    python -m benchmarks.train_gpu --toy     # a few weights on a CPU: that it runs, no figures
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from benchmarks.results import write_result
from cgd_ray.processes import free_port
from cgd_ray.training.attention import DOCUMENT_ATTENTION, register
from cgd_ray.training.batch import BatchTensors
from cgd_ray.training.flops import compute_shape, peak_flops, training_flops
from cgd_ray.training.loss import target_loss_sum

_SKIPPED_STEPS = 3
_DOCUMENTS_A_ROW = 4
_GOAL_MFU, _GOAL_RATIO = 0.45, 1.3
# Llama 3.2 1B's shape; and one that a CPU trains in a second.
_MODEL = LlamaConfig(
    vocab_size=128_256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=2,
)
_TOY = LlamaConfig(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=2,
)


def save_model(folder: str, *, toy: bool) -> None:
    """Save a model of random weights, and a tokenizer that rivals want to see."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(_TOY if toy else _MODEL, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    ).save_pretrained(folder)


def make_task(folder: str, *, toy: bool) -> dict[str, Any]:
    """Return what all contenders train; documents of equal length leave rivals nothing to pad."""
    length, vocabulary = (64, _TOY.vocab_size) if toy else (4096, _MODEL.vocab_size)
    num_steps = _SKIPPED_STEPS + (2 if toy else 15)
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocabulary, (num_steps * _DOCUMENTS_A_ROW, length), generator=draw)
    num_targets = length // 3
    return {
        "source": folder,
        "input_ids": ids.tolist(),
        "loss_masks": [[0] * (length - num_targets) + [1] * num_targets] * len(ids),
        "tokens_a_row": length * _DOCUMENTS_A_ROW,
        "documents_a_batch": _DOCUMENTS_A_ROW,
        "num_steps": num_steps,
        "learning_rate": 1e-5,
        "threads": os.cpu_count(),
        "bfloat16_weights": True,
        "attention": "flash_attention_2" if importlib.util.find_spec("flash_attn") else "sdpa",
    }


def train_ours() -> None:
    """Train the task on stdin as the loop does; print what was measured."""
    task = json.load(sys.stdin)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    whole = all(importlib.util.find_spec(name) for name in ("deepspeed", "peft"))
    trainer = EngineTrainer(task, device) if whole else PlainTrainer(task, device)
    shape = compute_shape(trainer.model)
    seconds: list[float] = []
    for step in range(task["num_steps"]):
        row = _row(task, step).to(device)
        start = _now()
        trainer.step(row)
        seconds.append(_now() - start)
    length = len(task["input_ids"][0])
    pairs = _DOCUMENTS_A_ROW * length**2
    targets = _DOCUMENTS_A_ROW * sum(task["loss_masks"][0])
    result: dict[str, Any] = {
        "optimizer": trainer.OPTIMIZER,
        "seconds": seconds,
        "flops_a_step": training_flops(shape, _DOCUMENTS_A_ROW * length, targets, pairs),
    }
    if device.type == "cuda":
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(result))


class EngineTrainer:
    """Our engine, as a training worker builds it."""

    OPTIMIZER = "DeepSpeed stage 0, float32 master weights"

    def __init__(self, task: dict[str, Any], device: torch.device) -> None:
        import torch.distributed as dist

        from benchmarks.train_ours import train_task
        from cgd_ray.training.engine import build_engine

        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed asks for it
        backend = "nccl" if device.type == "cuda" else "gloo"
        address = f"tcp://127.0.0.1:{free_port()}"
        dist.init_process_group(backend, init_method=address, rank=0, world_size=1)
        self._engine = build_engine(train_task(task, ""), device)
        self.model = self._engine.module

    def step(self, row: BatchTensors) -> None:
        """Train on one row."""
        loss = target_loss_sum(self._engine, row) / len(row.target_ids_K)
        self._engine.backward(loss)
        self._engine.step()


class PlainTrainer:
    """Our attention and loss with nothing but torch."""

    OPTIMIZER = "torch's AdamW, all in bfloat16"

    def __init__(self, task: dict[str, Any], device: torch.device) -> None:
        register()
        model: Any = AutoModelForCausalLM.from_pretrained(
            task["source"], dtype=torch.bfloat16, attn_implementation=DOCUMENT_ATTENTION
        )
        self.model = model.to(device).train()
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=task["learning_rate"], betas=(0.9, 0.95), fused=True
        )

    def step(self, row: BatchTensors) -> None:
        """Train on one row."""
        (target_loss_sum(self.model, row) / len(row.target_ids_K)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()


def _row(task: dict[str, Any], step: int) -> BatchTensors:
    """Return the documents of a step as a packed batch."""
    part = slice(step * _DOCUMENTS_A_ROW, (step + 1) * _DOCUMENTS_A_ROW)
    ids, masks = torch.tensor(task["input_ids"][part]), torch.tensor(task["loss_masks"][part])
    length = ids.shape[1]
    targets = masks.flatten().nonzero()[:, 0]
    return BatchTensors(
        input_ids_1T=ids.flatten()[None],
        position_ids_1T=torch.arange(length).repeat(_DOCUMENTS_A_ROW)[None],
        predict_at_K=targets - 1,
        target_ids_K=ids.flatten()[targets],
        document_lengths=[length] * _DOCUMENTS_A_ROW,
    )


def _now() -> float:
    """Return seconds, after the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def contenders() -> dict[str, list[str]]:
    """Return the command of each contender that can run here."""
    script = str(Path(__file__).with_name("train_rivals.py"))
    found = {
        "ours": [sys.executable, "-m", "benchmarks.train_gpu", "--ours"],
        "hf": [sys.executable, script, "hf"],
    }
    trl = os.environ.get("TRL_PYTHON")
    if trl or importlib.util.find_spec("trl"):
        found["trl"] = [trl or sys.executable, script, "trl"]
    return found


def measured(command: list[str], task: dict[str, Any]) -> dict[str, Any]:
    """Run one contender; return its steady rate."""
    done = subprocess.run(
        command,
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, **({} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"})},
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    seconds = found["seconds"][_SKIPPED_STEPS:]
    a_step = sum(seconds) / len(seconds)
    num_targets = _DOCUMENTS_A_ROW * sum(task["loss_masks"][0])
    return {
        "tokens_per_s": round(task["tokens_a_row"] / a_step, 1),
        "target_tokens_per_s": round(num_targets / a_step, 1),
        "seconds_a_step": {"mean": a_step, "min": min(seconds), "max": max(seconds)},
        **{
            k: found[k] for k in ("versions", "optimizer", "peak_gib", "flops_a_step") if k in found
        },
    }


def main() -> None:
    """Measure each contender, print, and write the result file where there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="tiny, on a CPU")
    parser.add_argument("--ours", action="store_true", help="be our contender (internal)")
    options = parser.parse_args()
    if options.ours:
        train_ours()
        return
    if not options.toy and not torch.cuda.is_available():
        sys.exit("no GPU here: --toy shows on a CPU that the benchmark runs")
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, toy=options.toy)
        task = make_task(folder, toy=options.toy)
        found = {name: measured(command, task) for name, command in contenders().items()}
    ours, rivals = found.pop("ours"), found
    for name, figures in {"ours": ours, **rivals}.items():
        print(f"{name}: {figures}")
    if options.toy or "failed" in ours:
        sys.exit(any("failed" in figures for figures in (ours, *rivals.values())))
    _report(ours, rivals)


def _report(ours: dict[str, Any], rivals: dict[str, Any]) -> None:
    """Add the MFU of each and write the result file."""
    peak = peak_flops(torch.cuda.get_device_name(), "bfloat16")
    flops = ours.pop("flops_a_step")
    ran = {name: figures for name, figures in rivals.items() if "failed" not in figures}
    for figures in (ours, *ran.values()):
        figures["mfu"] = peak and round(flops / figures["seconds_a_step"]["mean"] / peak, 3)
    best = max((figures["target_tokens_per_s"] for figures in ran.values()), default=None)
    ratio = ours["target_tokens_per_s"] / best if best else 0.0
    path = write_result(
        "train-gpu",
        "python -m benchmarks.train_gpu",
        ours,
        rivals,
        ratio,
        {name: figures["seconds_a_step"] for name, figures in {"ours": ours, **ran}.items()},
        passed=ratio >= _GOAL_RATIO and (ours["mfu"] or 0.0) >= _GOAL_MFU,
    )
    print(f"{ratio:.2f} x the better rival, MFU {ours['mfu']}: {path.name}")


if __name__ == "__main__":
    main()
