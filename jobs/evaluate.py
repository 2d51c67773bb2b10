"""Ask base and student the test prompts over HTTP, grade the answers, compare.

Needs `train`; serves both itself unless `evaluate.base_url` names an endpoint.

    ray job submit --working-dir . -- python jobs/evaluate.py RUN.toml [a.b=c ...] [--dry-run]
"""

import sys

from cgd_ray.cli import job
from cgd_ray.settings import Settings


def main(settings: Settings) -> None:
    """Do the job on the Ray cluster that it was submitted to, or on a local one."""
    # Imported here, so that --dry-run and a misspelt setting cost no cluster library.
    from cgd_ray.pipeline.run import evaluate

    evaluate(settings)


if __name__ == "__main__":
    sys.exit(job("evaluate", main))
