"""A Ray cluster on machines of their own, started as `ray up` does with our rendered file.

The commands are the file's. What is ours: the address at which the dashboard listens, which the
file leaves to a tunnel; how many CPUs a machine says it has, because all of them share this host's;
and no autoscaler, because there is nothing to log in to.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from cgd_ray.cluster.commands import write
from tests.support.namespaces import DISK, Machine, Network

NAMES = ("head", "node-1", "node-2")
_REPO = Path(__file__).resolve().parents[2]
_DASHBOARD_PORT = 8265
_START_LIMIT_S = 240
_NO_TUNNEL = "--dashboard-host=127.0.0.1"
_NO_AUTOSCALER = " --autoscaling-config=~/ray_bootstrap_config.yaml"


@dataclass
class RayMachines:
    """Head and workers, and what they need to come up again."""

    network: Network
    cluster: dict[str, Any]  # the rendered file
    token_file: Path
    before_head: tuple[str, ...] = ()  # more commands of the head, before it starts Ray
    head_options: str = ""  # more of them

    @property
    def head(self) -> Machine:
        return self.network.machines[0]

    @property
    def workers(self) -> tuple[Machine, ...]:
        return self.network.machines[1:]

    @property
    def address(self) -> str:
        """Where the Jobs API answers."""
        return f"http://{self.head.address}:{_DASHBOARD_PORT}"

    @property
    def authorization(self) -> dict[str, str]:
        """What the dashboard's API wants of whoever asks."""
        return {"Authorization": f"Bearer {self.token_file.read_text()}"}

    def ask(self, path: str) -> Any:
        """Return what the dashboard's API answers, decoded."""
        url, headers = self.address + path, self.authorization
        response = httpx.get(url, headers=headers, timeout=30, trust_env=False)
        response.raise_for_status()
        return response.json()

    def alive(self) -> list[str]:
        """Return the addresses of the nodes that Ray takes for alive; none: no answer."""
        try:
            told = self.ask("/nodes?view=summary")["data"]["summary"]
        except (httpx.HTTPError, ValueError):
            return []
        up = [n["raylet"] for n in told if n.get("raylet", {}).get("state") == "ALIVE"]
        return sorted(raylet["nodeManagerAddress"] for raylet in up)

    def start_all(self) -> None:
        """Switch all machines on, the head first; returns when Ray knows them all."""
        self.start(self.head)
        self.start(*self.workers)
        addresses = sorted(machine.address for machine in self.network.machines)
        until(lambda: self.alive() == addresses, 60, self.head.log)

    def start(self, *machines: Machine) -> None:
        """Switch machines on; returns when their Ray is up."""
        for machine in machines:
            kind = "head" if machine is self.head else "worker"
            commands = [
                _on_this_host(command, machine, kind)
                for command in self.cluster[f"{kind}_start_ray_commands"]
            ]
            if machine is self.head:
                commands = [*self.before_head, *commands[:-1], commands[-1] + self.head_options]
            machine.start(commands, self._variables())
            until(
                lambda machine=machine: machine.is_up or not machine.is_on,
                _START_LIMIT_S,
                machine.log,
            )
            assert machine.is_up, machine.log.read_text()

    def _variables(self) -> dict[str, str]:
        return {
            "HOME": str(DISK),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "RAY_TMPDIR": str(DISK),  # a short path: sockets lie below
            "RAY_HEAD_IP": self.head.address,  # as `ray up` sets it
            "RAY_USAGE_STATS_ENABLED": "0",
        }


def ray_machines(net: Network, run_file: Path, overrides: Sequence[str]) -> RayMachines:
    """Return a run's cluster, switched off; the AWS environment is that of its nodes.

    Args:
        net: the machines, the head first.
        run_file: of the run.
        overrides: of its settings.
    """
    addresses = [machine.address for machine in net.machines]
    named = [*overrides, f"cluster.machines={json.dumps(addresses)}"]
    folder = net.machines[0].disk.parent
    files = write(str(run_file), named, str(folder / "cluster"))
    (path,) = (path for path in files if path.name == "machines.yaml")
    cluster = yaml.safe_load(path.read_text())
    told = cluster["provider"]
    assert [told["head_ip"], *told["worker_ips"]] == addresses
    token_file = folder / "token"
    private_file(token_file, secrets.token_hex(32))
    for machine in net.machines:
        _install(machine, token_file.read_text())
    return RayMachines(net, cluster, token_file)


class Client:
    """A `cgd` command of this host's, which has the cluster's token and no key of the store."""

    def __init__(self, cluster: RayMachines, log: Path, *words: str) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cgd_ray.cli", *words, "--address", cluster.address],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=_REPO,
                env={**own, "RAY_AUTH_TOKEN_PATH": str(cluster.token_file)},
            )

    @property
    def told(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    @property
    def job(self) -> str:
        """The job that it submitted."""
        (name,) = re.findall(r"submitted ([\w-]+) to", self.told)
        return name

    def until(self, condition: Callable[[], object], limit_s: float) -> None:
        """Wait for a condition while the command goes on."""

        def holds() -> object:
            assert self.process.poll() is None, self.told[-4000:]
            return condition()

        until(holds, limit_s, self.log)

    def ended(self, limit_s: float) -> int:
        """Wait for its end; return its status."""
        until(lambda: self.process.poll() is not None, limit_s, self.log)
        return self.process.returncode

    def close(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()


def until(condition: Callable[[], object], limit_s: float, *logs: Path) -> None:
    """Wait for a condition; where it does not come true, show the end of the logs."""
    deadline = time.monotonic() + limit_s
    while not condition():
        told = [path.read_text()[-4000:] for path in logs if path.exists()]
        assert time.monotonic() < deadline, "\n".join(told)
        time.sleep(0.1)


def _install(machine: Machine, token: str) -> None:
    """Put on a machine's disk what `ray up` and the set-up commands would: ours, and the token."""
    (machine.disk / "cgd_ray").mkdir()
    (machine.disk / "cgd_ray" / ".venv").symlink_to(sys.prefix)
    private_file(machine.disk / ".ray" / "auth_token", token)
    private_file(
        machine.disk / ".aws" / "credentials",
        "[default]\n"
        f"aws_access_key_id = {os.environ['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {os.environ['AWS_SECRET_ACCESS_KEY']}\n",
    )
    private_file(
        machine.disk / ".aws" / "config",
        f"[default]\nregion = us-east-1\nendpoint_url = {os.environ['AWS_ENDPOINT_URL']}\n",
    )


def private_file(path: Path, text: str) -> None:
    """Write a file that its owner alone can read."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _on_this_host(command: str, machine: Machine, kind: str) -> str:
    """Return a command of the file with what is ours in it."""
    if " start " not in command:
        return command
    if kind == "head":
        assert _NO_TUNNEL in command and _NO_AUTOSCALER in command
        command = command.replace(_NO_TUNNEL, f"--dashboard-host={machine.address}")
        command = command.replace(_NO_AUTOSCALER, "")
    num_cpus = 0 if kind == "head" else 4  # the head drives, and nothing else
    return f"{command} --num-cpus={num_cpus} --object-store-memory=300000000"
