"""Critiques and refinements by the teacher, of the drafts that the store holds.

They stream through Ray Data; every paid answer is kept before it is used.

    ray job submit --working-dir . -- python jobs/teach.py RUN.toml [a.b=c ...] [--retry-failed]
"""

import sys

from cgd_ray.cli import job
from cgd_ray.settings import Settings


def main(settings: Settings, retry_failed: bool = False) -> None:
    """Do the job on the Ray cluster that it was submitted to, or on a local one."""
    # Imported here, so that --dry-run and a misspelt setting cost no cluster library.
    from cgd_ray.pipeline.run import teach

    teach(settings, retry_failed=retry_failed)


if __name__ == "__main__":
    sys.exit(job("teach", main))
