"""Peak memory of one forward and backward on a row, in a process of its own.

The growth of the process' resident memory above what it has with weights and gradients in place;
Linux only.

    python -m benchmarks.train_memory MODEL_FOLDER cgd|full NUM_TOKENS [checkpointing]
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from cgd_ray.training.attention import DOCUMENT_ATTENTION, register
from cgd_ray.training.batch import BatchTensors
from cgd_ray.training.loss import target_loss_sum

_TARGET_SHARE = 1 / 3
_DOCUMENT = 256  # tokens


def row(num_tokens: int) -> BatchTensors:
    """Return a row of documents of 256 random tokens; the last third of each is the target."""
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 40_000, (num_tokens,), generator=draw)
    length = min(_DOCUMENT, num_tokens)
    places = torch.arange(num_tokens)
    targets = places[places % length >= length - int(length * _TARGET_SHARE)]
    return BatchTensors(
        input_ids_1T=ids[None],
        position_ids_1T=(places % length)[None],
        predict_at_K=targets - 1,
        target_ids_K=ids[targets],
        document_lengths=[length] * (num_tokens // length),
    )


def full_loss_sum(model: Any, batch: BatchTensors) -> torch.Tensor:  # noqa: ANN401
    """Return the same loss as usually computed: all logits, in float32, the others ignored."""
    logits_TV = model(
        input_ids=batch.input_ids_1T,
        position_ids=batch.position_ids_1T,
        document_lengths=batch.document_lengths,
        use_cache=False,
    ).logits[0]
    labels_T = torch.full((len(logits_TV),), -100)
    labels_T[batch.predict_at_K] = batch.target_ids_K
    return cross_entropy(logits_TV.float(), labels_T, ignore_index=-100, reduction="sum")


def status_bytes(field: str) -> int:
    """Return a figure of this process: VmRSS is its memory now, VmHWM the most since a reset."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(field + ":"))


def main(source: str, kind: str, num_tokens: str, *checkpointing: str) -> None:
    """Run the step, print its loss and peak."""
    register()
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16, attn_implementation=DOCUMENT_ATTENTION
    ).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    loss_sum = {"cgd": target_loss_sum, "full": full_loss_sum}[kind]
    target_loss_sum(model, row(16)).backward()  # gradients and kernels are in place after it
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts again
    before = status_bytes("VmRSS")
    batch = row(int(num_tokens))
    loss = loss_sum(model, batch)
    loss.backward()
    peak = status_bytes("VmHWM") - before
    print(json.dumps({"loss": loss.item() / len(batch.target_ids_K), "peak_mib": peak >> 20}))


if __name__ == "__main__":
    main(*sys.argv[1:])
