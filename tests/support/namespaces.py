"""Machines on one host: each has its own network address, processes, name, home and disk.

A machine is a network namespace on a bridge, and in it one process that is the machine's init: its
death is the death of all that ran there, as when the power goes. What a machine mounts, it alone
sees: `/mnt` is its own disk, `/dev/shm` its own memory.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cgd_ray.processes import child, stop

DISK = Path("/mnt")  # as the machine itself sees it
_UNSHARE = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
# bash takes over orphans, as an init does; what it runs must not end with the script.
_BOOT = f"""
set -e
hostname "$1"
mount --bind "$2" {DISK}
mount --bind "$2/hosts" /etc/hosts
mount -t tmpfs -o size=2g tmpfs /dev/shm
bash -ec "$3"
touch {DISK}/up
sleep infinity & wait
"""


@dataclass
class Machine:
    """One machine, on or off."""

    name: str  # as it calls itself
    address: str
    disk: Path  # what it sees as `DISK`, from outside
    namespace: str
    log: Path
    _on: ExitStack = field(default_factory=ExitStack)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def is_up(self) -> bool:
        """Whether its commands have come to their end, and it has not died since."""
        return self.is_on and (self.disk / "up").exists()

    @property
    def is_on(self) -> bool:
        """Whether it lives: an init ends when one of its commands fails."""
        return self._process is not None and self._process.poll() is None

    def start(self, commands: Sequence[str], environment: dict[str, str]) -> None:
        """Switch it on; returns at once.

        Args:
            commands: what its shell runs, one after the other, until one fails.
            environment: all variables that they see.
        """
        (self.disk / "up").unlink(missing_ok=True)
        machine = ["ip", "netns", "exec", self.namespace, "env", "-i"]
        machine += [f"{name}={value}" for name, value in environment.items()]
        boot = ["bash", "-c", _BOOT, "boot", self.name, str(self.disk), "\n".join(commands)]
        self._process = self._on.enter_context(child([*machine, *_UNSHARE, *boot], self.log))

    def kill(self) -> None:
        """`kill -9` all that runs on it, at the same moment; its disk stays."""
        assert self.is_on and self._process is not None, f"{self.name} is off"
        for init in psutil.Process(self._process.pid).children():
            init.kill()
        self._process.wait(30)

    def off(self) -> None:
        """Switch it off, however far it came."""
        with contextlib.suppress(AssertionError, psutil.NoSuchProcess):
            self.kill()
        if self._process is not None:
            stop(self._process)
        self._on.close()

    def titles(self) -> list[str]:
        """Return the command lines of what runs on it."""
        found: list[str] = []
        if not self.is_on or self._process is None:
            return found
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.append(" ".join(process.cmdline()))
        return found


@dataclass(frozen=True)
class Network:
    """Machines, and the address at which they find this host."""

    address: str
    machines: tuple[Machine, ...]


def why_not() -> str | None:
    """Return why there can be no machines here, if so."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "network namespaces need `ip` (iproute2) and `unshare` (util-linux)"
    name = f"cgd{os.getpid()}-probe"
    commands = (
        _ip("netns", "add", name),
        ["ip", "netns", "exec", name, *_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(DISK)],
        _ip("link", "add", name[:15], "type", "bridge"),
    )
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"no namespaces here: {' '.join(command)}: {done.stderr.strip()}"
    finally:
        _quietly(_ip("link", "del", name[:15]), _ip("netns", "del", name))
    return None


@contextmanager
def network(names: Sequence[str]) -> Iterator[Network]:
    """Hold machines, switched off, on a network of their own for the length of the block.

    Whatever happens inside, nothing of it is left over.

    Args:
        names: of the machines.
    """
    _sweep()
    bridge, subnet = f"cgd{os.getpid()}", _free_subnet()
    with (
        tempfile.TemporaryDirectory(prefix="cgd-nodes-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        stack.callback(_quietly, _ip("link", "del", bridge))
        _run(_ip("link", "add", bridge, "type", "bridge"))
        _run(_ip("addr", "add", f"{subnet}.1/24", "dev", bridge))
        _run(_ip("link", "set", bridge, "up"))
        addresses = {name: f"{subnet}.{number}" for number, name in enumerate(names, 2)}
        machines = tuple(
            _machine(stack, bridge, subnet, Path(folder), name, addresses) for name in names
        )
        yield Network(f"{subnet}.1", machines)


def _machine(
    stack: ExitStack,
    bridge: str,
    subnet: str,
    folder: Path,
    name: str,
    addresses: dict[str, str],
) -> Machine:
    namespace = f"{bridge}-{name}"
    disk = folder / name
    disk.mkdir()
    lines = [f"{address} {host}" for host, address in addresses.items()]
    (disk / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines]) + "\n")
    outside = f"{bridge}v{addresses[name].rpartition('.')[2]}"
    machine = Machine(name, addresses[name], disk, namespace, folder / f"{name}.log")
    stack.callback(_quietly, _ip("netns", "del", namespace))
    stack.callback(machine.off)
    _run(_ip("netns", "add", namespace))
    inside = ["type", "veth", "peer", "name", "eth0", "netns", namespace]
    _run(_ip("link", "add", outside, *inside))
    _run(_ip("link", "set", outside, "master", bridge, "up"))
    for words in (
        ("addr", "add", f"{machine.address}/24", "dev", "eth0"),
        ("link", "set", "lo", "up"),
        ("link", "set", "eth0", "up"),
        # Leads nowhere: but programs find their own address by it.
        ("route", "add", "default", "via", f"{subnet}.1"),
    ):
        _run(_ip("-n", namespace, *words))
    return machine


def _sweep() -> None:
    """Remove what runs have left over that were killed: their processes died with them."""
    for name in _words(_ip("netns", "list")) | _words(_ip("-br", "link", "show", "type", "bridge")):
        found = re.fullmatch(r"cgd(\d+)(-[\w-]+)?", name)
        if found and not Path(f"/proc/{found[1]}").exists():
            _quietly(_ip("netns", "del", name) if found[2] else _ip("link", "del", name))


def _words(command: list[str]) -> set[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _free_subnet() -> str:
    """Return the first three numbers of a /24 that this host has no route to."""
    routes = subprocess.run(_ip("route"), capture_output=True, text=True, check=True).stdout
    start = os.getpid()
    subnets = (f"10.203.{(start + number) % 254 + 1}" for number in range(254))
    return next(subnet for subnet in subnets if f"{subnet}." not in routes)


def _ip(*words: str) -> list[str]:
    return ["ip", *words]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _quietly(*commands: list[str]) -> None:
    for command in commands:
        subprocess.run(command, capture_output=True, check=False)
