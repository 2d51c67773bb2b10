"""Drafts by the student on a vLLM actor pool, critiques and refinements by the teacher.

Both stream through Ray Data; every finished shard is committed to the store as it lands.

    ray job submit --working-dir . -- python jobs/generate.py RUN.toml [a.b=c ...] [--retry-failed]
"""

import sys

from cgd_ray.cli import job
from cgd_ray.settings import Settings


def main(settings: Settings, retry_failed: bool = False) -> None:
    """Do the job on the Ray cluster that it was submitted to, or on a local one."""
    # Imported here, so that --dry-run and a misspelt setting cost no cluster library.
    from cgd_ray.pipeline.run import generate

    generate(settings, retry_failed=retry_failed)


if __name__ == "__main__":
    sys.exit(job("generate", main))
