"""From what a step did to the figures that are kept of it."""

import resource
from dataclasses import dataclass

import torch

from cgd_ray.settings import TrainSettings
from cgd_ray.training.batch import PackedIndex
from cgd_ray.training.flops import ComputeShape, compute_shape, peak_flops, training_flops
from cgd_ray.training.metrics import StepMetrics


@dataclass(frozen=True, slots=True)
class StepMeter:
    """What all steps of a run are measured against."""

    index: PackedIndex
    shape: ComputeShape
    num_workers: int
    peak_flops: float | None  # of one worker's device

    def measure(
        self,
        rows: list[int],
        *,
        step: int,
        loss: float,
        learning_rate: float,
        grad_norm: float,
        seconds: float,
        data_wait_s: float,
        num_fetched: int,
    ) -> StepMetrics:
        """Return the figures of one step, over all workers; `rows` are those that it took."""
        num_tokens = int(self.index.num_tokens_N[rows].sum())
        num_targets = int(self.index.num_targets_N[rows].sum())
        num_pairs = int(self.index.num_pairs_N[rows].sum())
        flops = training_flops(self.shape, num_tokens, num_targets, num_pairs)
        peak = self.peak_flops and self.peak_flops * self.num_workers
        return StepMetrics(
            step=step,
            loss=loss,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            num_targets=num_targets,
            num_tokens=num_tokens,
            seconds=seconds,
            padding_share=1 - num_tokens / (len(rows) * int(self.index.num_tokens_N.max())),
            data_wait_s=data_wait_s,
            num_fetched=num_fetched,
            mfu=flops / seconds / peak if peak else None,
            peak_memory_gib=peak_memory_bytes() / 2**30,
        )


def step_meter(
    index: PackedIndex,
    model: torch.nn.Module,
    train: TrainSettings,
    device: torch.device,
    num_workers: int,
) -> StepMeter:
    """Return the meter of a run, with the peak FLOP/s of the settings or of the device's name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = train.peak_tflops * 1e12 if train.peak_tflops else peak_flops(name, train.dtype)
    return StepMeter(index, compute_shape(model), num_workers, peak)


def peak_memory_bytes() -> int:
    """Return the most memory so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
