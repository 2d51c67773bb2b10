"""Load the problems from their source into the store.

Reads `prompts.*`; writes the prompts stage below `run.root`.

    ray job submit --working-dir . -- python jobs/prompts.py RUN.toml [a.b=c ...] [--dry-run]
"""

import sys

from cgd_ray.cli import job
from cgd_ray.settings import Settings


def main(settings: Settings) -> None:
    """Do the job on the Ray cluster that it was submitted to, or on a local one."""
    # Imported here, so that --dry-run and a misspelt setting cost no cluster library.
    from cgd_ray.pipeline.run import prompts

    prompts(settings)


if __name__ == "__main__":
    sys.exit(job("prompts", main))
