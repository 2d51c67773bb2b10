"""Uploads by a process of their own.

In a thread of the training process they would hold the interpreter's lock so often that the steps
beside them all but stand still.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from cgd_ray.store import StoreError, open_store
from cgd_ray.training.checkpoint import file_hash

_NICENESS = 10  # training comes first


class Uploader:
    """A process that uploads files, one at a time; it ends with this one."""

    def __init__(self, root: str) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cgd_ray.training.uploader", root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )

    def send(self, path: Path, key: str) -> tuple[int, str]:
        """Upload a file; return its size in bytes and its SHA-256.

        Raises:
            StoreError: the store refuses, or the process is gone.
        """
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps([str(path), key]), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except OSError as error:
            raise StoreError(f"{key}: the uploading process is gone") from error
        if not answer:
            raise StoreError(f"{key}: the uploading process is gone")
        size, digest, problem = json.loads(answer)
        if problem:
            raise StoreError(problem)
        return size, digest

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()


def main(root: str) -> None:
    """Upload what standard input names, line by line, until it ends."""
    os.nice(_NICENESS)
    store = open_store(root)
    for line in sys.stdin:
        name, key = json.loads(line)
        path, problem = Path(name), None
        try:
            store.upload(path, key)
        except StoreError as error:
            problem = str(error)
        print(json.dumps([path.stat().st_size, file_hash(path), problem]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
