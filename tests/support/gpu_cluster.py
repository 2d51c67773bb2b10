"""A real Ray autoscaler on one host, whose nodes only say that they have GPUs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import ray

from cgd_ray.processes import free_port

IDLE_S = 6
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def cluster_config(gcs_address: str) -> dict[str, object]:
    """Return the autoscaler's file: a head without GPUs, up to 3 GPU nodes, up to 2 CPU nodes."""
    kinds = {
        "ray.head.default": ({"CPU": 32}, 0),
        "gpu": ({"CPU": 2, "GPU": 1}, 3),
        "cpu": ({"CPU": 32}, 2),
    }
    return {
        "cluster_name": "gpus",
        "max_workers": 5,
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "disable_node_updaters": True,
            "use_node_id_as_ip": True,  # all nodes share this host's address
            "gcs_address": gcs_address,
        },
        "auth": {"ssh_user": "ubuntu"},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            kind: {"resources": has, "node_config": {}, "min_workers": 0, "max_workers": limit}
            for kind, (has, limit) in kinds.items()
        },
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{name: [] for name in COMMANDS},
    }


@contextmanager
def gpu_cluster() -> Iterator[None]:
    """Hold the cluster, joined by this process, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="gpus-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        address = f"{ray.util.get_node_ip_address()}:{port}"
        config = Path(folder) / "autoscaling.json"
        config.write_text(json.dumps(cluster_config(address)))
        environment = {
            **os.environ,
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        options = [
            f"--port={port}",
            "--num-cpus=32",
            "--num-gpus=0",
            "--object-store-memory=200000000",
            "--include-dashboard=false",
            f"--temp-dir={folder}/ray",
            f"--autoscaling-config={config}",
        ]
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", *options]
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
            yield
        finally:
            ray.shutdown()
            for process_id in processes_of(folder):
                os.kill(process_id, signal.SIGKILL)


def nodes() -> Counter[str]:
    """Return how many nodes are up beside the head, by kind."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    workers = [has for has in alive if "node:__internal_head__" not in has]
    return Counter("gpu" if has.get("GPU") else "cpu" for has in workers)


class NodeWatch:
    """Each state of the cluster that differs from the one before, while the block runs."""

    def __init__(self) -> None:
        self.seen: list[Counter[str]] = [nodes()]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(0.1):
            now = nodes()
            if now != self.seen[-1]:
                self.seen.append(now)


def processes_of(folder: str) -> list[int]:
    """Return the processes whose command line names our own session's folder."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue  # it has ended
        if folder.encode() in command and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found
