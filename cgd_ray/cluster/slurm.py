"""A batch script for Slurm: a Ray cluster for the length of one run. Pure."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from cgd_ray.cluster.names import labels_option, object_name
from cgd_ray.cluster.sizes import Need, Sizes
from cgd_ray.placement import Role, roles_of
from cgd_ray.settings import Settings

_ENGINES: tuple[Role, ...] = ("sampler", "trainer", "server")
_GPUS_A_NODE = 8

_SCRIPT = """
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0

# Whoever has this token may run code on the nodes: one for each job, readable by its owner alone.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/.cgd/token-$SLURM_JOB_ID"
(umask 077 && mkdir -p .cgd && openssl rand -hex 32 > "$RAY_AUTH_TOKEN_PATH")
chmod 600 "$RAY_AUTH_TOKEN_PATH"

# Two jobs may share a node: a port and a folder of our own.
port=$((20000 + SLURM_JOB_ID % 20000))
head=$(hostname --ip-address | cut -d' ' -f1)
folder=/tmp/ray-$SLURM_JOB_ID

ray start --head --node-ip-address="$head" --port=$port --temp-dir="$folder" \\
  --include-dashboard=false --num-cpus={head_cpus} \\
  --labels={head_labels} --block &
ray=$!
trap 'kill $(jobs -p) || true; rm -rf "$RAY_AUTH_TOKEN_PATH" "$folder"' EXIT
srun {group}ray start --address="$head:$port" --num-cpus={cpus} {gpus}\\
  --labels={labels} --block &

export RAY_ADDRESS="$head:$port"
until ray health-check --address="$RAY_ADDRESS" > /dev/null 2>&1; do
  kill -0 $ray # it has ended: so do we
  sleep 2
done
python jobs/run.py {run} "$@"
"""


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of all engines: stages take turns, so they are as many as the largest wants."""

    num: int
    gpus: int  # of one node, here and below
    cpus: int
    ray_cpus: int
    memory_gib: int


def slurm_script(
    settings: Settings, needs: Sizes, run: Sequence[str], header: Sequence[str]
) -> str:
    """Return the script, to be submitted from the root of a checkout that all nodes see.

    Args:
        settings: of the run.
        needs: its machines.
        run: the run file, and overrides, as the command named them.
        header: lines of the comment, without `#`.
    """
    nodes = _gpu_nodes(needs) if needs.on_gpu else _cpu_nodes(needs)
    head = needs.head
    # The teacher's actors work beside the head: the nodes of the engines are another group.
    head_cpus = head.cpus + needs.teacher.num * needs.teacher.cpus
    memory = head.memory_gib + needs.teacher.num * needs.teacher.memory_gib
    gpus = f" --gpus-per-node={nodes.gpus}" if nodes.gpus else ""
    lines = [
        "#!/bin/bash",
        *(f"# {line}".rstrip() for line in header),
        f"#SBATCH --job-name={object_name(settings)}",
        "#SBATCH --output=%x-%j.log",
        f"#SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task={head_cpus} --mem={memory}G",
        "#SBATCH hetjob",
        f"#SBATCH --nodes={nodes.num} --ntasks-per-node=1 --cpus-per-task={nodes.cpus} "
        f"--mem={nodes.memory_gib}G{gpus}",
    ]
    body = _SCRIPT.format(
        head_cpus=head_cpus,
        head_labels=labels_option(*roles_of("head"), "teacher"),
        group="--het-group=1 ",
        cpus=nodes.ray_cpus,
        gpus=f"--num-gpus={nodes.gpus} " if nodes.gpus else "",
        labels=labels_option(*_ENGINES),
        run=shlex.join(run),
    )
    return "\n".join(lines) + "\n" + body


def _gpu_nodes(needs: Sizes) -> _Nodes:
    engines = [need for need in needs.workers if need.gpus]
    most = max(need.num * need.gpus for need in engines)
    gpus = max(min(most, _GPUS_A_NODE), *(need.gpus for need in engines))

    def on_one(need: Need) -> int:
        return min(need.num, gpus // need.gpus)

    return _Nodes(
        num=max(-(-need.num // on_one(need)) for need in engines),
        gpus=gpus,
        cpus=max(need.cpus * on_one(need) for need in engines),
        ray_cpus=max(need.cpus * on_one(need) for need in engines),
        memory_gib=max(need.memory_gib * on_one(need) for need in engines),
    )


def _cpu_nodes(needs: Sizes) -> _Nodes:
    engines = [need for need in needs.workers if need.role in _ENGINES]
    ray_cpus = max(need.ray_cpus for need in engines)

    def on_one(need: Need) -> int:
        return min(need.num, ray_cpus // need.ray_cpus)

    return _Nodes(
        num=max(-(-need.num // on_one(need)) for need in engines),
        gpus=0,
        cpus=max(need.cpus * on_one(need) for need in engines),
        ray_cpus=ray_cpus,
        memory_gib=max(need.memory_gib * on_one(need) for need in engines),
    )
