"""Training workers as plain processes with a gloo group: the loop without Ray.

Run as a script it is one worker: `python workers.py TASK.pickle STOP_AT_STEP`.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from cgd_ray.processes import free_port
from cgd_ray.training.task import TrainTask

LIMIT_S = 180


def run_workers(task: TrainTask, stop_after_step: int | None = None) -> None:
    """Train with as many processes as the task says.

    With `stop_after_step` each is killed (SIGKILL) when it begins the step after that one.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.pickle"
        path.write_bytes(pickle.dumps(task))
        port = free_port()
        workers = [
            subprocess.Popen(
                [sys.executable, __file__, str(path), str(stop_after_step)],
                env={
                    **os.environ,
                    "DS_ACCELERATOR": "cpu",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(task.train.num_workers),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(task.train.num_workers)
        ]
        outputs = [worker.communicate(timeout=LIMIT_S)[0] for worker in workers]
    wanted = 0 if stop_after_step is None else -signal.SIGKILL
    for worker, output in zip(workers, outputs, strict=True):
        assert worker.returncode == wanted, output[-3000:]


def main(path: str, stop_after_step: str) -> None:
    import torch.distributed as dist

    from cgd_ray.training import loop

    task: TrainTask = pickle.loads(Path(path).read_bytes())
    if stop_after_step != "None":
        rows_of_step = loop.rows_of_step

        def killed(step: int, *rest: int) -> list[int]:
            if step == int(stop_after_step):
                os.kill(os.getpid(), signal.SIGKILL)
            return rows_of_step(step, *rest)

        loop.rows_of_step = killed
    dist.init_process_group("gloo")
    loop.train_loop(task)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
