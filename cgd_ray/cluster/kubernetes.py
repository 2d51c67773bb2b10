"""What the KubeRay objects of a run need around them in its namespace. Pure."""

from typing import Any
from urllib.parse import urlsplit

from cgd_ray.cluster.document import Noted
from cgd_ray.cluster.names import object_name
from cgd_ray.cluster.pods import (
    AGENT_PORT,
    CONTAINER_SECURITY,
    DASHBOARD_PORT,
    METRICS_PORT,
    POD_SECURITY,
    SERVICE_ACCOUNT,
    pod_labels,
)
from cgd_ray.settings import Settings

REDIS_PORT = 6379
_REDIS_IMAGE = "redis:7.4.6-bookworm"
_REDIS_USER = 999  # of that image
_METADATA_SERVICE = "169.254.169.254/32"  # gives a machine's role to whoever asks
_HTTPS, _DNS, _KUBERNETES = 443, 53, 6443


def surroundings(settings: Settings, run_text: str) -> list[dict[str, Any]]:
    """Return namespace, service account, run file, network policy and Redis.

    Args:
        settings: of the run.
        run_text: the run file as it is.
    """
    return [
        _namespace(settings),
        _service_account(settings),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(settings, "run"),
            "data": {"run.toml": run_text},
        },
        _network_policy(settings),
        *_redis(settings),
    ]


def _metadata(settings: Settings, *parts: str) -> dict[str, Any]:
    return {
        "name": object_name(settings, *parts),
        "namespace": settings.cluster.namespace,
        "labels": pod_labels(settings),
    }


def _namespace(settings: Settings) -> dict[str, Any]:
    levels = {"enforce": "baseline", "warn": "restricted"}
    labels = {f"pod-security.kubernetes.io/{mode}": level for mode, level in levels.items()}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": settings.cluster.namespace, "labels": labels},
    }


def _service_account(settings: Settings) -> dict[str, Any]:
    c = settings.cluster
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": SERVICE_ACCOUNT,
            "namespace": c.namespace,
            "annotations": {
                "eks.amazonaws.com/role-arn": f"arn:aws:iam::{c.account}:role/{c.role}"
            },
        },
    }


def _network_policy(settings: Settings) -> dict[str, Any]:
    """Return who may talk to the run's pods, and whom they may talk to."""
    own = {"podSelector": {"matchLabels": pod_labels(settings)}}
    serve = settings.serve.port
    incoming = [
        {"from": [own]},
        # KubeRay submits, asks for the state of jobs and of Serve, and looks after health.
        {
            "from": [_anywhere("app.kubernetes.io/name", "kuberay-operator")],
            "ports": _ports(DASHBOARD_PORT, AGENT_PORT, serve),
        },
        {
            "from": [_anywhere("app.kubernetes.io/name", "prometheus")],
            "ports": _ports(METRICS_PORT),
        },
        # Clients of the served student, in this namespace: each shows an API key besides.
        {
            "from": [{"podSelector": {"matchLabels": {"cgd-client": "true"}}}],
            "ports": _ports(serve),
        },
    ]
    web = {"ipBlock": {"cidr": "0.0.0.0/0", "except": [_METADATA_SERVICE]}}
    outgoing: list[dict[str, Any]] = [
        {"to": [own]},
        {"ports": [{"protocol": kind, "port": _DNS} for kind in ("UDP", "TCP")]},
        # S3, the hub, the teacher, Kubernetes' own API.
        {
            "to": [web, {"namespaceSelector": {}}],
            "ports": _ports(_HTTPS, _KUBERNETES, *_other_ports(settings)),
        },
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(settings),
        "spec": {
            "podSelector": {"matchLabels": pod_labels(settings)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": incoming,
            "egress": outgoing,
        },
    }


def _other_ports(settings: Settings) -> list[int]:
    """Return the ports besides HTTPS's that the run's addresses name."""
    named = (settings.teacher.base_url, settings.evaluate.base_url)
    parts = [urlsplit(url) for url in named if url]
    found = {part.port or (80 if part.scheme == "http" else _HTTPS) for part in parts}
    return sorted(found - {_HTTPS})


def _anywhere(label: str, value: str) -> dict[str, Any]:
    return {"namespaceSelector": {}, "podSelector": {"matchLabels": {label: value}}}


def _ports(*ports: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _redis(settings: Settings) -> list[dict[str, Any]]:
    """Return the Redis that outlives the head: one of its own, on a disk."""
    name, labels = object_name(settings, "redis"), pod_labels(settings)
    chosen = {**labels, "app.kubernetes.io/component": "redis"}
    amounts = {"cpu": "250m", "memory": "512Mi"}
    # In a file: an argument would show the password in the list of processes.
    start = (
        "umask 077\n"
        'printf "requirepass %s\\n" "$(cat /etc/redis/password)" > /tmp/redis.conf\n'
        "exec redis-server /tmp/redis.conf --dir /data --appendonly yes\n"
    )
    container = {
        "name": "redis",
        "image": _REDIS_IMAGE,
        "command": ["/bin/sh", "-c", start],
        "ports": [{"name": "redis", "containerPort": REDIS_PORT}],
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": CONTAINER_SECURITY,
        "livenessProbe": {"tcpSocket": {"port": REDIS_PORT}, "periodSeconds": 10},
        "readinessProbe": {"tcpSocket": {"port": REDIS_PORT}, "periodSeconds": 5},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "password", "mountPath": "/etc/redis", "readOnly": True},
        ],
    }
    user = {"runAsUser": _REDIS_USER, "runAsGroup": _REDIS_USER, "fsGroup": _REDIS_USER}
    secret = {"secretName": "cgd-redis", "defaultMode": Noted(0o440, "0440")}
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {**POD_SECURITY, **user},
        "containers": [container],
        "volumes": [{"name": "password", "secret": secret}],
    }
    room = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(settings, "redis"),
            "spec": {"selector": chosen, "ports": [{"name": "redis", "port": REDIS_PORT}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": _metadata(settings, "redis"),
            "spec": {
                "serviceName": name,
                "replicas": 1,
                "selector": {"matchLabels": chosen},
                "template": {"metadata": {"labels": chosen}, "spec": pod},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": room}],
            },
        },
    ]
