"""The student reads refinements and answers: log-probabilities and entropies of their tokens."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from cgd_ray.audit.gain import Probe, TargetReading
from cgd_ray.errors import UserError

MAX_BATCH_TOKENS = 2_048  # of one pass, padding included, unless a single probe is longer


def load_reader(source: str) -> Any:  # noqa: ANN401 - a transformers model
    """Return a student that only reads: on the GPU in bfloat16, or on the CPU in float32.

    Args:
        source: a model folder or Hugging Face id.

    Raises:
        UserError: it cannot be loaded.
    """
    gpu = torch.cuda.is_available()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.bfloat16 if gpu else torch.float32
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise UserError(f"the student {source} cannot be loaded: {first}") from error
    return model.to("cuda" if gpu else "cpu").eval()


def read_targets(model: Any, probes: Sequence[Probe]) -> Iterator[list[TargetReading]]:  # noqa: ANN401
    """Yield the readings of probes, a batch of similar lengths at a time, the longest first.

    Args:
        model: as `load_reader` returns it.
        probes: in any order.
    """
    ordered = sorted(probes, key=lambda probe: -len(probe.example.input_ids))
    while ordered:
        size = max(1, MAX_BATCH_TOKENS // len(ordered[0].example.input_ids))
        yield _read(model, ordered[:size])
        ordered = ordered[size:]


@torch.inference_mode()
def _read(model: Any, probes: Sequence[Probe]) -> list[TargetReading]:  # noqa: ANN401
    lengths = [len(probe.example.input_ids) for probe in probes]
    first = [probe.example.loss_mask.index(1) for probe in probes]
    # Padded at the end: attention is causal, so that no real token sees the padding.
    tokens_BT = torch.zeros((len(probes), max(lengths)), dtype=torch.long, device=model.device)
    for row, probe in enumerate(probes):
        tokens_BT[row, : lengths[row]] = torch.tensor(probe.example.input_ids)
    # Logits where a token of some row is predicted, and nowhere else.
    start = min(first) - 1
    keep_L = torch.arange(start, max(lengths) - 1, device=model.device)
    logits_BLV = model(input_ids=tokens_BT, logits_to_keep=keep_L, use_cache=False).logits
    readings: list[TargetReading] = []
    for row, probe in enumerate(probes):
        places = slice(first[row] - 1 - start, lengths[row] - 1 - start)
        log_p_KV = torch.log_softmax(logits_BLV[row, places].float(), -1)
        targets_K1 = tokens_BT[row, first[row] : lengths[row], None]
        chosen_K = log_p_KV.gather(1, targets_K1)[:, 0]
        entropies_K = -(log_p_KV.exp() * log_p_KV).sum(-1)
        log_ps, entropies = tuple(chosen_K.tolist()), tuple(entropies_K.tolist())
        readings.append(TargetReading(probe.draft_id, probe.context, log_ps, entropies))
    return readings
