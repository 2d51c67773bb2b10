"""Serve base and student over the OpenAI API with Ray Serve until the job is stopped.

Needs `train`; the prompt that a model sees holds no critique.

    ray job submit --working-dir . -- python jobs/serve.py RUN.toml [a.b=c ...] [--dry-run]
"""

import sys

from cgd_ray.cli import job
from cgd_ray.settings import Settings


def main(settings: Settings) -> None:
    """Do the job on the Ray cluster that it was submitted to, or on a local one."""
    # Imported here, so that --dry-run and a misspelt setting cost no cluster library.
    from cgd_ray.pipeline.serve import serve

    serve(settings)


if __name__ == "__main__":
    sys.exit(job("serve", main))
