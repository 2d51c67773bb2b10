"""KubeRay: a cluster to submit to, a job for each part of a run, and a service. Pure."""

import shlex
from collections.abc import Sequence
from typing import Any

from cgd_ray.cluster.document import Noted, document
from cgd_ray.cluster.kubernetes import REDIS_PORT
from cgd_ray.cluster.names import object_name
from cgd_ray.cluster.pods import (
    API_KEYS,
    CONTAINER_SECURITY,
    POD_SECURITY,
    RUN_FILE,
    SERVICE_ACCOUNT,
    TEACHER_KEY,
    WORK_DIR,
    Mount,
    pod_labels,
    ray_pod,
    run_mounts,
    serve_mounts,
    teacher_mounts,
)
from cgd_ray.cluster.ray_yaml import PRIORITY_NOTE
from cgd_ray.cluster.sizes import Need, Sizes
from cgd_ray.placement import Role, node_labels, roles_of
from cgd_ray.settings import Settings

RAY_VERSION = "2.60.0"
_API = "ray.io/v1"
_SPARE = 1  # sampler pods: a lost spot one still counts while another one starts

# What each job needs besides the head.
JOBS: dict[str, tuple[Role, ...]] = {
    "generate": ("teacher", "sampler"),
    "train": ("trainer",),
    "evaluate": ("server",),
    "run": ("teacher", "sampler", "trainer", "server"),
}


def ray_cluster(settings: Settings, needs: Sizes) -> dict[str, Any]:
    """Return a cluster that stays, for `cgd VERB RUN.toml --address`."""
    spec = _cluster_spec(settings, needs, needs.workers)
    return {
        "apiVersion": _API,
        "kind": "RayCluster",
        "metadata": _metadata(settings),
        "spec": {**spec, "gcsFaultToleranceOptions": _redis(settings)},
    }


def ray_job(
    settings: Settings, needs: Sizes, verb: str, overrides: Sequence[str]
) -> dict[str, Any]:
    """Return a job with a cluster of its own.

    Args:
        settings: of the run.
        needs: its machines.
        verb: of `JOBS`.
        overrides: of the run file.
    """
    workers = [need for need in needs.workers if need.role in JOBS[verb]]
    command = ["python", f"jobs/{verb}.py", RUN_FILE, *overrides, f"run.work_dir={WORK_DIR}"]
    if verb != "train" and _wants_key(settings):
        command.append(f"teacher.api_key_file={TEACHER_KEY}")
    return {
        "apiVersion": _API,
        "kind": "RayJob",
        "metadata": _metadata(settings, verb),
        "spec": {
            "entrypoint": shlex.join(command),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            # A new cluster and the same command, which goes on where it was.
            "backoffLimit": 2,
            "submitterPodTemplate": _submitter(settings),
            "rayClusterSpec": _cluster_spec(settings, needs, workers),
        },
    }


def ray_service(settings: Settings, needs: Sizes, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the served student.

    Args:
        settings: of the run.
        needs: its machines.
        overrides: of the run file.
    """
    spec = _cluster_spec(settings, needs, [needs.server], serve=True)
    return {
        "apiVersion": _API,
        "kind": "RayService",
        "metadata": _metadata(settings, "serve"),
        "spec": {
            "serveConfigV2": document(_application(settings, overrides), ()),
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": {**spec, "gcsFaultToleranceOptions": _redis(settings)},
        },
    }


def _cluster_spec(
    settings: Settings, needs: Sizes, workers: Sequence[Need], *, serve: bool = False
) -> dict[str, Any]:
    key = teacher_mounts() if _wants_key(settings) and not serve else []
    own = [*run_mounts(settings), *(serve_mounts() if serve else [])]
    head_cpus = 0 if serve else needs.head.ray_cpus
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": Noted("v2", "v1 knows no labels: nodes would never come"),
            "idleTimeoutSeconds": 60 * settings.cluster.idle_minutes,
            "resources": {
                name: {"cpu": "500m", "memory": "512Mi"} for name in ("requests", "limits")
            },
            "securityContext": CONTAINER_SECURITY,
        },
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": str(head_cpus)},
            "labels": node_labels(*(("head",) if serve else roles_of("head"))),
            "template": ray_pod(settings, needs.head, [*own, *key]),
        },
        "workerGroupSpecs": [
            _group(settings, need, [*own, *(key if need.role == "teacher" else [])], serve=serve)
            for need in workers
        ],
    }


def _group(
    settings: Settings, need: Need, mounts: Sequence[Mount], *, serve: bool
) -> dict[str, Any]:
    s = settings.serve
    spare = _SPARE if need.role == "sampler" and settings.cluster.spot_samplers else 0
    least = len(s.models) * s.min_replicas if serve else 0
    most = len(s.models) * s.max_replicas if serve else need.num
    return {
        "groupName": need.role,
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most + spare,
        **({"priority": Noted(1, PRIORITY_NOTE)} if need.role == "sampler" else {}),
        "rayStartParams": {"num-cpus": str(need.ray_cpus)},
        "labels": node_labels(*roles_of(need.role)),
        "template": ray_pod(settings, need, mounts, serve_port=s.port if serve else None),
    }


def _application(settings: Settings, overrides: Sequence[str]) -> dict[str, Any]:
    """Return Serve's configuration: serve/guarded.yaml for this run."""
    s = settings.serve
    return {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": "0.0.0.0",
            "port": s.port,
            # The gateway's own limits come first.
            "request_timeout_s": s.body_timeout_s + s.request_timeout_s + 5,
        },
        "applications": [
            {
                "name": "cgd",
                "route_prefix": "/",
                "import_path": "cgd_ray.serving.app:build",
                "args": {
                    "run": RUN_FILE,
                    "overrides": [
                        *overrides,
                        f"run.work_dir={WORK_DIR}",
                        "serve.host=0.0.0.0",
                        f"serve.api_keys_file={API_KEYS}",
                    ],
                },
            }
        ],
    }


def _metadata(settings: Settings, *parts: str) -> dict[str, Any]:
    c = settings.cluster
    labels, notes = pod_labels(settings), {}
    if c.queue:
        labels["kueue.x-k8s.io/queue-name"] = c.queue
        notes = {"kueue.x-k8s.io/elastic-job": "true"}  # its pods come and go
    if c.queue and c.priority_class:
        labels["kueue.x-k8s.io/priority-class"] = c.priority_class
    named = {"name": object_name(settings, *parts), "namespace": c.namespace, "labels": labels}
    return {**named, "annotations": notes} if notes else named


def _redis(settings: Settings) -> dict[str, Any]:
    """Return where the head keeps what it must find again after its death."""
    password = {"secretKeyRef": {"name": "cgd-redis", "key": "password"}}
    return {
        "redisAddress": f"{object_name(settings, 'redis')}:{REDIS_PORT}",
        "redisPassword": {"valueFrom": password},
    }


def _submitter(settings: Settings) -> dict[str, Any]:
    """Return the pod that submits the job and follows its log."""
    amounts = {"cpu": "500m", "memory": "1Gi"}
    return {
        "metadata": {"labels": pod_labels(settings)},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": SERVICE_ACCOUNT,
            "automountServiceAccountToken": False,
            "securityContext": POD_SECURITY,
            "containers": [
                {
                    "name": "ray-job-submitter",
                    "image": f"{settings.cluster.image}:cpu",
                    "resources": {"requests": amounts, "limits": amounts},
                    "securityContext": CONTAINER_SECURITY,
                }
            ],
        },
    }


def _wants_key(settings: Settings) -> bool:
    """Return whether the teacher takes a key; Bedrock goes by the role."""
    return settings.teacher.backend in ("openai", "anthropic")
