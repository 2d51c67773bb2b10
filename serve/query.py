"""Ask every served model: `python serve/query.py "12 + 30 - 7 ="`; `--help` says what else."""

import sys

from cgd_ray.serving.asking import main

if __name__ == "__main__":
    sys.exit(main())
