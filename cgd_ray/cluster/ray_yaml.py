"""Ray's own cluster YAML: an autoscaling cluster on EC2, and a list of own machines. Pure."""

from typing import Any

from cgd_ray.cluster.document import Noted
from cgd_ray.cluster.ec2 import Instance, choose, units_on
from cgd_ray.cluster.images import install_commands
from cgd_ray.cluster.names import labels_option
from cgd_ray.cluster.sizes import Need, Sizes
from cgd_ray.placement import Role, node_labels, roles_of
from cgd_ray.settings import ClusterSettings, Settings

TEACHER_KEY = "~/.cgd/teacher-key"  # on EC2 machines
_CHECKOUT = "~/cgd_ray"
_RAY = f"{_CHECKOUT}/.venv/bin/ray"
_TOKEN = "~/.ray/auth_token"
_SPARE = 1  # sampler nodes: a lost spot node still counts while another one starts
# Without RAY_AUTH_MODE, `ray start` only warns that whoever reaches the port may run code. Jobs
# start the `python` that comes first in the PATH of the head's Ray.
_AUTH = (
    f"chmod 600 {_TOKEN} && PATH={_CHECKOUT}/.venv/bin:$PATH RAY_AUTH_MODE=token "
    "RAY_worker_niceness=0"
)
_GPU_DEVICE = "/dev/nvidiactl"

PRIORITY_NOTE = "Ray Data asks for GPUs without a label: let it get these"
TOKEN_NOTE = (
    f"The token of all nodes and clients: `ray get-auth-token --generate` makes {_TOKEN},",
    "`chmod 600` it; it goes to the nodes as a file.",
)


def aws(settings: Settings, needs: Sizes) -> dict[str, Any]:
    """Return the cluster on EC2; `ray up` takes it.

    Raises:
        UserError: no machine type holds a need, or one that the settings name is too small.
    """
    c = settings.cluster
    chosen = [(need, choose(need, getattr(c, f"{need.role}_instance"))) for need in needs.workers]
    types = {need.role: _node_type(c, need, instance) for need, instance in chosen}
    head = _node_type(c, needs.head, choose(needs.head, c.head_instance))
    return {
        "cluster_name": settings.run.name,
        "max_workers": sum(kind["max_workers"] for kind in types.values()),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": c.idle_minutes,
        "provider": {
            "type": "aws",
            "region": Noted(c.region, "<- cluster.region"),
            "cache_stopped_nodes": False,
        },
        "auth": {"ssh_user": Noted(c.ssh_user, "<- cluster.ssh_user")},
        "head_node_type": "head",
        "available_node_types": {"head": head, **types},
        **_files(c),
        **_commands(c, needs, own=False),
    }


def machines(settings: Settings, needs: Sizes) -> dict[str, Any]:
    """Return the cluster of `cluster.machines`; `ray up` takes it."""
    c = settings.cluster
    return {
        "cluster_name": settings.run.name,
        "provider": {
            "type": "local",
            "head_ip": Noted(c.machines[0], "<- cluster.machines"),
            "worker_ips": list(c.machines[1:]),
        },
        "auth": {"ssh_user": Noted(c.ssh_user, "<- cluster.ssh_user")},
        **_files(c),
        **_commands(c, needs, own=True),
    }


def wanted(needs: Sizes) -> list[str]:
    """Return what the run wants of own machines, a line for each role."""
    return [
        f"{need.role}: {need.num} x {need.words} ({need.note})"
        for need in (needs.head, *needs.workers)
    ]


def _node_type(c: ClusterSettings, need: Need, instance: Instance) -> dict[str, Any]:
    on_one = units_on(need, instance)
    num, spot = -(-need.num // on_one), need.role == "sampler" and c.spot_samplers
    # Where one unit takes a whole machine, Ray counts the unit; else the machine.
    cpus = need.ray_cpus if need.ray_cpus < need.cpus else instance.cpus
    resources = {"CPU": cpus} | ({"GPU": instance.gpus} if need.gpus else {})
    config: dict[str, Any] = {
        "InstanceType": Noted(instance.name, f"for {need.words}"),
        "ImageId": Noted(c.machine_image, "<- cluster.machine_image"),
        "IamInstanceProfile": {"Name": Noted(c.role, "<- cluster.role")},
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {"VolumeSize": need.disk_gib * on_one, "VolumeType": "gp3"},
            }
        ],
    }
    if spot:
        config["InstanceMarketOptions"] = {"MarketType": "spot"}
    workers: dict[str, Any] = {"min_workers": 0, "max_workers": num + (_SPARE if spot else 0)}
    if need.role == "sampler":
        workers["priority"] = Noted(1, PRIORITY_NOTE)
    return {
        **({"max_workers": 0} if need.role == "head" else workers),
        "resources": Noted(resources, need.note),
        "labels": node_labels(*roles_of(need.role)),
        "node_config": config,
    }


def _files(c: ClusterSettings) -> dict[str, Any]:
    home = f"/home/{c.ssh_user}"
    return {
        "file_mounts": {f"{home}/cgd_ray": ".", f"{home}/.ray/auth_token": _TOKEN},
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [".venv/", ".cgd/", ".git/"],
    }


def _commands(c: ClusterSettings, needs: Sizes, *, own: bool) -> dict[str, Any]:
    head = f"{_RAY} start --head --port=6379 --dashboard-host=127.0.0.1"
    head += " --autoscaling-config=~/ray_bootstrap_config.yaml"
    worker = f"{_RAY} start --address=$RAY_HEAD_IP:6379"
    before_head, before_worker, labels = "", "", ""
    if own:  # elsewhere labels come with the node type
        labels = " --labels=$LABELS"
        before_head = f"{_labels_by_gpu(needs, (*roles_of('head'), 'teacher'), add=True)}\n"
        before_worker = f"{_labels_by_gpu(needs, roles_of('teacher'), add=False)}\n"
    setup = [_install(needs)] if own else [_install(needs), _fetch_key(c)]
    return {
        "setup_commands": setup,
        "head_start_ray_commands": [f"{_RAY} stop", f"{before_head}{_AUTH} {head}{labels}"],
        "worker_start_ray_commands": [f"{_RAY} stop", f"{before_worker}{_AUTH} {worker}{labels}"],
    }


def _install(needs: Sizes) -> str:
    """Return what installs a machine once: every `ray up` runs it again."""

    def commands(indent: str, *, on_gpu: bool) -> str:
        return f" &&\n{indent}".join(install_commands(".venv/bin/pip install -q", on_gpu=on_gpu))

    install = commands("", on_gpu=False)
    if needs.on_gpu:
        install = (
            f"if [ -e {_GPU_DEVICE} ]; then\n  {commands('  ', on_gpu=True)}\n"
            f"else\n  {commands('  ', on_gpu=False)}\nfi"
        )
    return (
        f"cd {_CHECKOUT} && {{ [ -e .venv/.installed ] ||\n"
        f"{{ python3.11 -m venv .venv &&\n{install} &&\ntouch .venv/.installed; }}; }}"
    )


def _fetch_key(c: ClusterSettings) -> str:
    ask = "aws secretsmanager get-secret-value --secret-id cgd/teacher-key"
    return (
        f"umask 077 && mkdir -p ~/.cgd &&\n"
        f"{ask} --region {c.region} --query SecretString --output text > {TEACHER_KEY} ||\n"
        "echo 'no secret cgd/teacher-key, or no right to read it: the teacher gets no key'"
    )


def _labels_by_gpu(needs: Sizes, roles: tuple[Role, ...], *, add: bool) -> str:
    """Return shell that sets $LABELS by what the machine has."""
    engines: tuple[Role, ...] = ("sampler", "trainer", "server")
    if not needs.on_gpu:
        return f"LABELS={labels_option(*roles, *engines)}"
    with_gpu = (*roles, *engines) if add else engines
    return (
        f"if [ -e {_GPU_DEVICE} ]; then LABELS={labels_option(*with_gpu)};\n"
        f"else LABELS={labels_option(*roles)}; fi"
    )
