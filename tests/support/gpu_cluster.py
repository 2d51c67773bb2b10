"""A real Ray autoscaler on one host: node types as shipped, nodes that only say what they have."""

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
from typing import Any, Self

import ray
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
)

from cgd_ray.processes import free_port

IDLE_S = 6
ROLES = ("teacher", "sampler", "trainer", "server")
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def cluster_config(shipped: dict[str, Any], gcs_address: str) -> dict[str, Any]:
    """Return a cluster file for this host: its node types, with the cloud taken away."""
    types = {
        FAKE_HEAD_NODE_TYPE if name == shipped["head_node_type"] else name: {
            **kind,
            "node_config": {},
        }
        for name, kind in shipped["available_node_types"].items()
    }
    return {
        "cluster_name": "gpus",
        "max_workers": shipped["max_workers"],
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "disable_node_updaters": True,
            "use_node_id_as_ip": True,  # all nodes share this host's address
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": gcs_address,
        },
        "auth": {"ssh_user": "ubuntu"},
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": types,
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{name: [] for name in COMMANDS},
    }


@contextmanager
def gpu_cluster(cluster_file: Path) -> Iterator[None]:
    """Hold the cluster of an AWS file, joined by this process, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="gpus-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        address = f"{ray.util.get_node_ip_address()}:{port}"
        config = Path(folder) / "autoscaling.json"
        shipped = yaml.safe_load(cluster_file.read_text(encoding="utf-8"))
        config.write_text(json.dumps(cluster_config(shipped, address)))
        head = shipped["available_node_types"][shipped["head_node_type"]]
        environment = {
            **os.environ,
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            # As `ray up` sets them: the first version of the autoscaler knows no labels.
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
        }
        labels = ",".join(f"{key}={value}" for key, value in head["labels"].items())
        options = [
            f"--port={port}",
            f"--num-cpus={head['resources']['CPU']}",
            "--num-gpus=0",
            f"--labels={labels}",
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
    """Return how many nodes are up beside the head, by the role that their label names."""
    labels = [node["Labels"] for node in ray.nodes() if node["Alive"]]
    roles = (kind for kind in ROLES for node in labels if f"cgd-{kind}" in node)
    return Counter(roles)


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
        stopped = False
        while not stopped:
            stopped = self._stop.wait(0.1)  # and then once more
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
