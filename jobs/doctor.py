"""Say what is installed, what would be used and what answers, on the cluster's head node.

Exits with status 2 if the run could not work.

    ray job submit --working-dir . -- python jobs/doctor.py RUN.toml [a.b=c ...] [--dry-run]
"""

import sys

from cgd_ray.cli import job
from cgd_ray.settings import Settings


def main(settings: Settings) -> None:
    """Do the job on the Ray cluster that it was submitted to, or on a local one."""
    # Imported here, so that --dry-run and a misspelt setting cost no cluster library.
    from cgd_ray.doctor import doctor

    doctor(settings)


if __name__ == "__main__":
    sys.exit(job("doctor", main))
