"""EC2 machine types, and which of them holds a need. Pure.

Sizes are AWS's published ones of 2026; GPU memory is what the driver leaves of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cgd_ray.cluster.sizes import Need
from cgd_ray.errors import UserError


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine type."""

    name: str
    cpus: int
    memory_gib: int
    gpus: int = 0
    gpu_gib: int = 0  # of one GPU
    linked: bool = False  # GPUs exchange gradients over NVLink


_FREE_SHARE = 0.95  # of a machine's memory; the rest is the system's
# Each list from the smallest up.
_CPU = (
    Instance("c7i.xlarge", 4, 8),
    Instance("m7i.xlarge", 4, 16),
    Instance("c7i.2xlarge", 8, 16),
    Instance("m7i.2xlarge", 8, 32),
    Instance("c7i.4xlarge", 16, 32),
    Instance("m7i.4xlarge", 16, 64),
    Instance("c7i.8xlarge", 32, 64),
    Instance("m7i.8xlarge", 32, 128),
    Instance("m7i.16xlarge", 64, 256),
)
_GPU = (
    Instance("g6e.2xlarge", 8, 64, 1, 44),  # L40S
    Instance("p5.4xlarge", 16, 256, 1, 79),  # H100
    Instance("g6e.12xlarge", 48, 384, 4, 44),
    Instance("g6e.48xlarge", 192, 1536, 8, 44),
    Instance("p5.48xlarge", 192, 2048, 8, 79, linked=True),
    Instance("p5en.48xlarge", 192, 2048, 8, 139, linked=True),  # H200
)
_ON_REQUEST = (  # not chosen by themselves: little memory, or an older generation
    Instance("g6.2xlarge", 8, 32, 1, 22),  # L4
    Instance("g6.12xlarge", 48, 192, 4, 22),
    Instance("p4d.24xlarge", 96, 1152, 8, 39, linked=True),  # A100
    Instance("p4de.24xlarge", 96, 1152, 8, 79, linked=True),
)
INSTANCES = {instance.name: instance for instance in (*_CPU, *_GPU, *_ON_REQUEST)}


def choose(need: Need, name: str | None) -> Instance:
    """Return the machine type that a need gets: the named one, or the smallest that holds it.

    Raises:
        UserError: the name is unknown, or no machine holds the need.
    """
    setting = f"cluster.{need.role}_instance"
    if name is not None and name not in INSTANCES:
        raise UserError(f"{setting}={name} is not known here: one of {', '.join(INSTANCES)}")
    offered: Sequence[Instance] = [INSTANCES[name]] if name else _GPU if need.gpus else _CPU
    for instance in offered:
        if not shortage(need, instance) and (name or instance.linked or not need.linked):
            return instance
    tried = "no EC2 type known here" if name is None else f"{setting}={name} never"
    raise UserError(
        f"{need.role} nodes want {need.words}, and {tried} has that "
        f"({offered[-1].name}: {shortage(need, offered[-1])}): {need.remedy}, or set {setting}"
    )


def shortage(need: Need, instance: Instance) -> str | None:
    """Return what a machine lacks for one unit of a need; None if it lacks nothing."""
    for has, wanted, unit in (
        (instance.gpus, need.gpus, "GPUs"),
        (instance.gpu_gib, need.gpu_gib, "GiB a GPU"),
        (instance.cpus, need.cpus, "CPUs"),
        (int(_FREE_SHARE * instance.memory_gib), need.memory_gib, "GiB of memory"),
    ):
        if has < wanted:
            return f"{has} of {wanted:g} {unit}"
    return None


def units_on(need: Need, instance: Instance) -> int:
    """Return how many units of a need one machine takes: by GPUs; without GPUs, one."""
    return instance.gpus // need.gpus if need.gpus else 1
