"""Pods: the containers of Ray's nodes on Kubernetes, without rights that they do not need. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgd_ray.cluster.document import Noted
from cgd_ray.cluster.images import USER_ID
from cgd_ray.cluster.names import object_name
from cgd_ray.cluster.sizes import Need
from cgd_ray.settings import Settings

RUN_FILE = "/etc/cgd/run/run.toml"
WORK_DIR = "/var/cgd"
TEACHER_KEY = "/etc/cgd/teacher/api-key"
API_KEYS = "/etc/cgd/serve/api-keys"
SERVICE_ACCOUNT = "cgd"
GCS_PORT, DASHBOARD_PORT, METRICS_PORT, AGENT_PORT = 6379, 8265, 8080, 52365
_HUB_TOKEN = "/etc/cgd/hub/token"

CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True, slots=True)
class Mount:
    """Files that a container sees."""

    name: str  # of the volume
    path: str
    source: Mapping[str, Any]  # of the volume
    read_only: bool = True


def pod_labels(settings: Settings) -> dict[str, str]:
    """Return the labels of every pod of a run: the network policy goes by them."""
    return {
        "app.kubernetes.io/part-of": "cgd",
        "app.kubernetes.io/instance": object_name(settings),
    }


def run_mounts(settings: Settings) -> list[Mount]:
    """Return what every Ray pod sees: the run file, a token for the hub if there is one, room."""
    return [
        Mount("run", "/etc/cgd/run", {"configMap": {"name": object_name(settings, "run")}}),
        _secret("hub", "cgd-hub-token", optional=True),
        Mount("work", WORK_DIR, {"emptyDir": {}}, read_only=False),
        Mount("tmp", "/tmp", {"emptyDir": {}}, read_only=False),
    ]


def teacher_mounts() -> list[Mount]:
    """Return the teacher's key, for whoever calls it."""
    return [_secret("teacher", "cgd-teacher-key")]


def serve_mounts() -> list[Mount]:
    """Return the keys that clients of the served student show."""
    return [_secret("serve", "cgd-api-keys")]


def ray_pod(
    settings: Settings, need: Need, mounts: Sequence[Mount], *, serve_port: int | None = None
) -> dict[str, Any]:
    """Return the template of a Ray node's pod.

    Args:
        settings: of the run.
        need: of one unit.
        mounts: what the container sees.
        serve_port: the node is ready when Serve's proxy on it is; None: when Ray is.
    """
    head = need.role == "head"
    container: dict[str, Any] = {
        "name": "ray-head" if head else "ray-worker",
        "image": f"{settings.cluster.image}:{'gpu' if need.gpus else 'cpu'}",
        "env": [
            {"name": "HF_TOKEN_PATH", "value": _HUB_TOKEN},
            {"name": "RAY_worker_niceness", "value": "0"},
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
        ],
        "ports": _ports(settings, head=head),
        "resources": Noted(_resources(need), need.note),
        "securityContext": CONTAINER_SECURITY,
        **_probes(head=head, serve_port=serve_port),
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop"]}}},
        "volumeMounts": [_volume_mount(mount) for mount in mounts],
    }
    spec: dict[str, Any] = {
        "serviceAccountName": SERVICE_ACCOUNT,
        # Of the head alone: the autoscaler beside it asks Kubernetes for pods.
        "automountServiceAccountToken": head,
        "securityContext": POD_SECURITY,
        "restartPolicy": "Never",  # a lost node is replaced by KubeRay, under another name
        "terminationGracePeriodSeconds": 120,  # training saves a state
        "containers": [container],
        "volumes": [{"name": mount.name, **mount.source} for mount in mounts],
        **_node_choice(settings, need),
    }
    if settings.cluster.priority_class:
        spec["priorityClassName"] = settings.cluster.priority_class
    return {"metadata": {"labels": pod_labels(settings)}, "spec": spec}


def _secret(name: str, secret: str, *, optional: bool = False) -> Mount:
    # 0440: the files are root's, and this pod's group, which is nobody else's, may read them.
    source = {"secretName": secret, "defaultMode": Noted(0o440, "0440"), "optional": optional}
    return Mount(name, f"/etc/cgd/{name}", {"secret": source})


def _volume_mount(mount: Mount) -> dict[str, Any]:
    one: dict[str, Any] = {"name": mount.name, "mountPath": mount.path}
    return {**one, "readOnly": True} if mount.read_only else one


def _resources(need: Need) -> dict[str, Any]:
    amounts: dict[str, Any] = {
        "cpu": str(need.cpus),
        "memory": f"{need.memory_gib}Gi",
        "ephemeral-storage": f"{need.disk_gib}Gi",
    }
    if need.gpus:
        amounts["nvidia.com/gpu"] = str(need.gpus)
    return {"requests": amounts, "limits": amounts}


def _ports(settings: Settings, *, head: bool) -> list[dict[str, Any]]:
    ports = {"metrics": METRICS_PORT, "serve": settings.serve.port}
    if head:
        ports |= {"gcs-server": GCS_PORT, "dashboard": DASHBOARD_PORT}
    return [{"name": name, "containerPort": port} for name, port in ports.items()]


def _probes(*, head: bool, serve_port: int | None) -> dict[str, Any]:
    """Return probes of Ray's own health pages, which want no token."""
    raylet = _get("/api/local_raylet_healthz", AGENT_PORT)
    ready = _get("/api/gcs_healthz", DASHBOARD_PORT) if head else raylet
    if serve_port:
        ready = _get("/-/healthz", serve_port)
    return {
        # Starting imports Ray, on a cold disk: up to two minutes.
        "startupProbe": {**raylet, "periodSeconds": 5, "failureThreshold": 24},
        "livenessProbe": {
            **raylet,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 12,
        },
        "readinessProbe": {
            **ready,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }


def _get(path: str, port: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": port}}


def _node_choice(settings: Settings, need: Need) -> dict[str, Any]:
    """Return tolerations and preferences: names differ between clouds, so nothing is required."""
    wishes: list[dict[str, Any]] = []
    if need.role == "sampler" and settings.cluster.spot_samplers:
        wishes.append(_wish("karpenter.sh/capacity-type", "In", "spot"))
    if not need.gpus:
        return {"affinity": _preferring(wishes)} if wishes else {}
    # A label of NVIDIA's GPU feature discovery, in MiB.
    wishes.append(_wish("nvidia.com/gpu.memory", "Gt", str(need.gpu_gib * 1024)))
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    return {"affinity": _preferring(wishes), "tolerations": [toleration]}


def _wish(key: str, operator: str, value: str) -> dict[str, Any]:
    rule = {"key": key, "operator": operator, "values": [value]}
    return {"weight": 100, "preference": {"matchExpressions": [rule]}}


def _preferring(wishes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": list(wishes)}}
