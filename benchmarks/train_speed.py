"""Target tokens a second of training, and its peak memory, beside TRL and transformers on a CPU.

One model (the embedded SmolLM2-135M), the same 64 examples of the cgd objective, about 1,024 tokens
a step, AdamW, bfloat16. Ours is the loop itself on DeepSpeed, which keeps float32 master weights;
the rivals are given weights and optimiser in bfloat16, which is faster and loses small updates, and
transformers' also float32 weights under autocast, which is what keeps as much as ours does. Each is
started as its users start it; ours with the environment that Ray Train's workers get, jemalloc in
it. For how much that is, transformers is run with it, too: a figure, not a rival.
`TRL_PYTHON` names an interpreter with trl beside the same torch and transformers.

    python -m benchmarks.train_speed
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.results import write_result
from benchmarks.train_examples import cgd_examples
from cgd_ray.settings import EMBEDDED_STUDENT
from cgd_ray.student import chat_tokenizer, student_source
from cgd_ray.training.environment import worker_environment

_REPEATS = 3
_NUM_EXAMPLES = 64
_TOKENS_A_ROW = 1024
_SKIPPED_STEPS = 5  # kernels are chosen, memory is claimed
_STEPS = 23  # a pass over the examples, so that each contender trains the same ones
_MEMORY_ROWS = (1024, 4096)  # tokens
_GOAL = 1.3
_NO_RIVAL = "hf_with_our_allocator"
_SCRIPT = str(Path(__file__).with_name("train_rivals.py"))


class Contender(NamedTuple):
    """Who trains."""

    command: Sequence[str]
    own: dict[str, Any]  # of the task
    environment: dict[str, str]


def contenders() -> dict[str, Contender]:
    """Return who can train here."""
    trl = os.environ.get("TRL_PYTHON")
    hf = [sys.executable, _SCRIPT, "hf"]
    narrow, plain = {"bfloat16_weights": True}, {"DS_ACCELERATOR": "cpu"}
    ours = worker_environment(on_gpu=False)
    found = {
        "ours": Contender([sys.executable, "-m", "benchmarks.train_ours"], {}, ours),
        "trl": Contender([trl or "", _SCRIPT, "trl"], narrow, plain),
        "hf": Contender(hf, narrow, plain),
        "hf_autocast": Contender(hf, {"bfloat16_weights": False}, plain),
        _NO_RIVAL: Contender(hf, narrow, ours),
    }
    if not trl:
        print("trl: not run, TRL_PYTHON is not set")
        del found["trl"]
    return found


def task() -> dict[str, Any]:
    """Return what all contenders train."""
    source = student_source(EMBEDDED_STUDENT, Path(".cgd/bench"))
    examples = cgd_examples(chat_tokenizer(source), _NUM_EXAMPLES, _TOKENS_A_ROW)
    num_tokens = sum(len(e.input_ids) for e in examples)
    return {
        "source": source,
        "input_ids": [e.input_ids for e in examples],
        "loss_masks": [e.loss_mask for e in examples],
        "tokens_a_row": _TOKENS_A_ROW,
        "documents_a_batch": round(_TOKENS_A_ROW * len(examples) / num_tokens),
        "num_steps": _SKIPPED_STEPS + _STEPS,
        "learning_rate": 1e-5,
        "threads": os.cpu_count(),
    }


def measured(who: Contender, given: dict[str, Any]) -> dict[str, Any]:
    """Run one contender; return its rates over the steady steps."""
    text = _child(who.command, who.environment, json.dumps({**given, **who.own}))
    seconds = sum(text["seconds"][_SKIPPED_STEPS:])
    steps = text["steps"][_SKIPPED_STEPS : len(text["seconds"])]
    wanted = sum(sum(mask[1:]) for mask in given["loss_masks"])
    if text["num_targets"] != wanted:
        raise ValueError(f"{who.command}: {text['num_targets']} targets an epoch, not {wanted}")
    return {
        "target_tokens_per_s": round(sum(s["targets"] for s in steps) / seconds, 1),
        "tokens_per_s": round(sum(s["tokens"] for s in steps) / seconds, 1),
        "seconds_of_steps": [round(x, 2) for x in text["seconds"]],
        "tokens_a_step": round(sum(s["tokens"] for s in steps) / len(steps)),
        **{key: text[key] for key in ("versions",) if key in text},
    }


def memory(source: str) -> dict[str, dict[str, Any]]:
    """Return the peaks of one step on a row, with the loss at its targets and with all logits."""
    found: dict[str, dict[str, Any]] = {}
    plain = {"DS_ACCELERATOR": "cpu"}
    for num_tokens in _MEMORY_ROWS:
        for more in ([], ["checkpointing"]):
            row = [str(num_tokens), *more]
            command = [sys.executable, "-m", "benchmarks.train_memory", source]
            peaks = {k: _child([*command, k, *row], plain) for k in ("cgd", "full")}
            name = ", ".join([f"{num_tokens} tokens a row", *more])
            ratio = peaks["cgd"]["peak_mib"] / peaks["full"]["peak_mib"]
            found[name] = {**peaks, "ratio": round(ratio, 3)}
            print(f"memory, {name}: {found[name]}", flush=True)
    return found


def _child(command: Sequence[str], environment: dict[str, str], given: str = "") -> dict[str, Any]:
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread(runs: Sequence[dict[str, Any]], key: str = "target_tokens_per_s") -> dict[str, float]:
    """Return minimum, median and maximum over repeats."""
    values = [run[key] for run in runs]
    return {"min": min(values), "median": median(values), "max": max(values)}


def main() -> None:
    """Measure in turns, print, write the result file."""
    given, teams = task(), contenders()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in teams}
    for _ in range(_REPEATS):
        for name, who in teams.items():
            runs[name].append(measured(who, given))
            print(f"{name}: {runs[name][-1]}", flush=True)
    lengths = [len(ids) for ids in given["input_ids"]]
    num_targets = sum(map(sum, given["loss_masks"]))
    medians = {name: spread(found)["median"] for name, found in runs.items()}
    rivals = {name: rate for name, rate in medians.items() if name not in ("ours", _NO_RIVAL)}
    best = max(rivals, key=lambda name: rivals[name])
    ratio = medians["ours"] / rivals[best]
    path = write_result(
        "train-speed",
        "python -m benchmarks.train_speed",
        {
            "runs": runs["ours"],
            "examples": {
                "number": len(lengths),
                "tokens": {"min": min(lengths), "median": median(lengths), "max": max(lengths)},
                "target_share": round(num_targets / sum(lengths), 3),
            },
            "peak_memory_of_a_step": memory(given["source"]),
        },
        {**{name: found for name, found in runs.items() if name != "ours"}, "best": best},
        ratio,
        {name: spread(found) for name, found in runs.items()},
        passed="trl" in runs and ratio >= _GOAL,
    )
    print(f"{ratio:.2f} x {best}: {path.name}")


if __name__ == "__main__":
    main()
