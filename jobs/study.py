"""A study: arms x seeds on one shared set of chains, at matched budgets, to one page.

Cells that are finished are skipped, so the same submission after a crash goes on from there.

    ray job submit --working-dir . -- python jobs/study.py STUDY.toml [a.b=c ...] [--dry-run]
"""

import sys

from cgd_ray.study.command import main

if __name__ == "__main__":
    sys.exit(main())
