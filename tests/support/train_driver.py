"""A driver that trains on Ray: `python -m tests.support.train_driver TASK.pickle WORK_DIR`.

Ends as `cgd train` does: 0, 2 with a line for a user's error, 130 when it was asked to stop.
"""

import os
import pickle
import sys
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.runtime import ray_session
from cgd_ray.store import open_store
from cgd_ray.training.launch import launch


def main(path: str, work_dir: str) -> int:
    task = pickle.loads(Path(path).read_bytes())
    try:
        with ray_session(4):
            launch(task, open_store(task.root), Path(work_dir), lambda steps: None)
    except UserError as error:
        print(f"UserError: {error}", flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
