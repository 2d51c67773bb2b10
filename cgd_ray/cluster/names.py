"""How things of a run are called on a cluster. Pure."""

import re

from cgd_ray.placement import Role, node_labels
from cgd_ray.settings import Settings

_LONGEST = 40  # KubeRay adds to a name, and Kubernetes stops at 63


def object_name(settings: Settings, *parts: str) -> str:
    """Return a name of a run's object, as Kubernetes and Slurm take it."""
    run = re.sub(r"[^a-z0-9-]+", "-", settings.run.name.lower())[:_LONGEST].strip("-")
    return "-".join((run, *parts))


def labels_option(*roles: Role) -> str:
    """Return the labels of a node with these roles, as `ray start --labels` takes them."""
    return ",".join(f"{key}={value}" for key, value in node_labels(*roles).items())
