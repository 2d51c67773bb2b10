"""One training run of a rival, in the environment of the interpreter that runs this file.

Reads a task as JSON from stdin, prints a line of JSON: seconds, tokens and targets of each step.

    python train_rivals.py trl|hf < task.json
"""

import json
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Clock(TrainerCallback):
    """Takes the time of each step, from the batch at hand to the optimiser's end."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Start."""
        self._start = now()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Stop."""
        self.seconds.append(now() - self._start)


def now() -> float:
    """Return seconds, after the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def arguments(task: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return what both rivals are told: our optimiser and schedule, and nothing beside training."""
    return {
        "output_dir": folder,
        "max_steps": task["num_steps"],
        "learning_rate": task["learning_rate"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": 1,
        "optim": "adamw_torch_fused",
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        # Weights in bfloat16 need no autocast, which costs time; float32 ones train under it.
        "bf16": not task["bfloat16_weights"],
        "gradient_checkpointing": task.get("gradient_checkpointing", False),
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "seed": 1,
    }


def load(task: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the model, from a folder or of random weights."""
    dtype = torch.bfloat16 if task["bfloat16_weights"] else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        task["source"], dtype=dtype, attn_implementation=task.get("attention")
    )


def trl_trainer(task: dict[str, Any], folder: str) -> Trainer:
    """Return TRL's trainer: packed rows, loss on the completion alone."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]

    rows = [
        {"input_ids": ids, "completion_mask": mask}
        for ids, mask in zip(task["input_ids"], task["loss_masks"], strict=True)
    ]
    config = SFTConfig(
        **arguments(task, folder),
        per_device_train_batch_size=1,
        packing=True,
        packing_strategy="bfd",
        max_length=task["tokens_a_row"],
        completion_only_loss=True,
    )
    return SFTTrainer(
        model=load(task),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(task["source"]),
    )


def hf_trainer(task: dict[str, Any], folder: str) -> Trainer:
    """Return transformers' trainer: padded batches of documents of like length, labels -100."""
    rows = [
        {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": [t if m else -100 for t, m in zip(ids, mask, strict=True)],
        }
        for ids, mask in zip(task["input_ids"], task["loss_masks"], strict=True)
    ]
    options = TrainingArguments(
        **arguments(task, folder),
        per_device_train_batch_size=task["documents_a_batch"],
        train_sampling_strategy="group_by_length",
    )
    tokenizer = AutoTokenizer.from_pretrained(task["source"])
    return Trainer(
        model=load(task),
        args=options,
        train_dataset=rows,  # pyright: ignore[reportArgumentType]
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
    )


def targets_of_all(trainer: Trainer) -> int:
    """Return the targets in one pass over the data, as the loss counts them."""
    return sum(int((b["labels"][:, 1:] != -100).sum()) for b in trainer.get_train_dataloader())


def main(name: str) -> None:
    """Train, print what was measured."""
    task = json.load(sys.stdin)
    if task.get("threads"):
        torch.set_num_threads(task["threads"])
    steps: list[dict[str, int]] = []
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = {"trl": trl_trainer, "hf": hf_trainer}[name](task, folder)
        trainer.add_callback(clock)
        num_targets = targets_of_all(trainer)
        compute = trainer.compute_loss

        def counted(model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:  # noqa: ANN401
            labels, mask = inputs["labels"], inputs.get("attention_mask")
            tokens = labels.numel() if mask is None else int(mask.sum())
            targets = int((labels[:, 1:] != -100).sum())
            steps.append({"tokens": tokens, "targets": targets, "places": labels.numel()})
            return compute(model, inputs, *rest, **more)

        trainer.compute_loss = counted
        trainer.train()
    packages = ("trl", "transformers") if name == "trl" else ("transformers", "accelerate")
    result = {
        "versions": {package: version(package) for package in packages},
        "seconds": clock.seconds,
        "steps": steps,
        "num_targets": num_targets,
    }
    if torch.cuda.is_available():
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
