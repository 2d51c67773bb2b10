"""Two steps of TRL's GRPO from a model folder, as docs/training.md shows; prints what they did.

python -m tests.support.grpo_steps FOLDER OUTPUT
"""

import json
import sys
from pathlib import Path

from datasets import Dataset
from safetensors.torch import load_file
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]


def distinct_words(completions: list[list[dict[str, str]]], **_: object) -> list[float | None]:
    """Reward answers for words that they have not said before."""
    return [float(len(set(answer[0]["content"].split()))) for answer in completions]


def main() -> None:
    """Train, and print one JSON object."""
    folder, output = sys.argv[1:]
    chats = [[{"role": "user", "content": f"w{n} w{n + 1}"}] for n in range(8, 12)]
    trainer = GRPOTrainer(
        model=folder,
        reward_funcs=distinct_words,
        args=GRPOConfig(
            output_dir=output,
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=8,
            learning_rate=1e-2,
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_dict({"prompt": chats}),
    )
    model = trainer.model
    assert model is not None
    exported = load_file(Path(folder) / "model.safetensors")

    def apart() -> float:
        now = model.state_dict()
        return max((now[name] - weight).abs().max().item() for name, weight in exported.items())

    before = apart()
    trainer.train()
    steps = [line for line in trainer.state.log_history if "grad_norm" in line]
    print(json.dumps({"before": before, "after": apart(), "rewards": [s["reward"] for s in steps]}))


if __name__ == "__main__":
    main()
