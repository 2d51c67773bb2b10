"""What `cgd cluster render` cannot derive from the rest of a run file."""

from typing import Self

from pydantic import Field, model_validator

from cgd_ray.settings.base import Section

_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class ClusterSettings(Section):
    """Names and places of a cluster. Numbers and sizes of nodes follow from the other sections."""

    image: str = "registry.example.com/cgd_ray"
    """Container image without its tag, which is `cpu` or `gpu`."""
    namespace: str = Field(default="cgd", pattern=_NAME)
    """Kubernetes namespace."""
    region: str = "us-east-1"
    """AWS region."""
    account: str = Field(default="000000000000", pattern=r"^[0-9]{12}$")
    """AWS account of the role."""
    role: str = "cgd-bucket-access"
    """IAM role that may read and write `run.root`: an instance profile on EC2, the service
    account's role on Kubernetes. No node has keys."""
    machine_image: str = "ami-00000000000000000"
    """EC2 image with Python 3.11 and, for GPUs, NVIDIA's driver."""
    ssh_user: str = "ubuntu"
    """User of that image and of own machines."""
    head_instance: str | None = None
    """EC2 type of the head; None: the smallest that suffices, here and below."""
    teacher_instance: str | None = None
    """EC2 type of the nodes that call the teacher."""
    sampler_instance: str | None = None
    """EC2 type of the nodes that draft."""
    trainer_instance: str | None = None
    """EC2 type of the nodes that train."""
    server_instance: str | None = None
    """EC2 type of the nodes that serve."""
    spot_samplers: bool = True
    """Draft on spot nodes: a lost one costs its open shards, no more."""
    idle_minutes: int = Field(default=5, ge=1)
    """A node that nothing uses for so long is given back."""
    machines: tuple[str, ...] = ("head.example.com", "node-1.example.com", "node-2.example.com")
    """Own machines, the head first: addresses that they reach each other by."""
    queue: str | None = Field(default=None, pattern=_NAME)
    """Kueue queue that admits the jobs; None: they start at once."""
    priority_class: str | None = Field(default=None, pattern=_NAME)
    """Kubernetes priority class of all pods."""

    @model_validator(mode="after")
    def _machines_are_several(self) -> Self:
        if len(self.machines) < 2 or len(set(self.machines)) < len(self.machines):
            raise ValueError(
                f"cluster.machines={list(self.machines)}: name the head and at least one other "
                "machine, each once"
            )
        return self
