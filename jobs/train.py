"""Fine-tune the student on the packed batches with Ray Train and DeepSpeed.

Needs `examples`; resumes from the newest whole training state of the same settings.

    ray job submit --working-dir . -- python jobs/train.py RUN.toml [a.b=c ...] [--dry-run]
"""

import sys

from cgd_ray.cli import job
from cgd_ray.settings import Settings


def main(settings: Settings) -> None:
    """Do the job on the Ray cluster that it was submitted to, or on a local one."""
    # Imported here, so that --dry-run and a misspelt setting cost no cluster library.
    from cgd_ray.pipeline.run import train

    train(settings)


if __name__ == "__main__":
    sys.exit(job("train", main))
