"""What the driver tells a training worker."""

from dataclasses import dataclass

from cgd_ray.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class TrainTask:
    """What a worker needs to know."""

    train: TrainSettings
    seed: int
    source: str  # the student's folder or Hugging Face id
    root: str  # of the store
    examples_folder: str  # packed batches in
    folder: str  # states, metrics and the finished model out
    model_card: str
    on_gpu: bool  # each worker has a GPU of its own
    threads: int  # for each CPU worker's arithmetic
