"""The whole flow: prompts in, a critique-free student served, scored and reported.

Stages whose artefact exists are skipped, so the same submission after a crash goes on from there.

    ray job submit --working-dir . -- python jobs/run.py RUN.toml [a.b=c ...] [--retry-failed]
"""

import sys

from cgd_ray.cli import job
from cgd_ray.settings import Settings


def main(settings: Settings, retry_failed: bool = False) -> None:
    """Do the job on the Ray cluster that it was submitted to, or on a local one."""
    # Imported here, so that --dry-run and a misspelt setting cost no cluster library.
    from cgd_ray.pipeline.run import run

    run(settings, retry_failed=retry_failed)


if __name__ == "__main__":
    sys.exit(job("run", main))
