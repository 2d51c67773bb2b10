"""All cluster files of a run, by name. Pure."""

import shlex
from dataclasses import dataclass

from cgd_ray.cluster import ray_yaml
from cgd_ray.cluster.document import document, documents
from cgd_ray.cluster.images import dockerfile
from cgd_ray.cluster.kuberay import JOBS, ray_cluster, ray_job, ray_service
from cgd_ray.cluster.kubernetes import surroundings
from cgd_ray.cluster.sizes import Sizes, sizes
from cgd_ray.cluster.slurm import slurm_script
from cgd_ray.settings import Settings


@dataclass(frozen=True, slots=True)
class Source:
    """What the files are made from, as it was typed."""

    run_file: str
    text: str  # of the run file
    overrides: tuple[str, ...]
    out: str

    @property
    def command(self) -> str:
        """Return the command that makes the files."""
        words = ["cgd", "cluster", "render", self.run_file, "--out", self.out, *self.overrides]
        return shlex.join(words)


# How each file is used; the first lines of it.
_AWS = (
    "An autoscaling cluster on EC2: `ray up THIS_FILE`, then `cgd VERB RUN.toml --address ...`.",
    "Every node is there for one role and carries its label; nodes come when a stage needs them.",
    "Put your own values where the lines marked <- say: they are settings of [cluster].",
    "The role must reach run.root's bucket and, on the head, start instances and pass itself on.",
    "The teacher's key: a secret cgd/teacher-key in Secrets Manager, which that role may read;",
    f"run with teacher.api_key_file={ray_yaml.TEACHER_KEY}.",
    *ray_yaml.TOKEN_NOTE,
)
_SLURM = (
    "A run on Slurm: `sbatch --time=... THIS_FILE [a.b=c ...]` from the root of a checkout with a",
    ".venv, on a file system that all nodes share. The first node drives and calls the teacher.",
)
_KUBERAY = "KubeRay 1.6 or newer, after surroundings.yaml."
_KUEUE = (
    "Kueue admits it: cluster.queue names the LocalQueue, cluster.priority_class the priority;",
    "its ElasticJobsViaWorkloadSlices must be on, because nodes come and go.",
)
_CLUSTER = (
    f"A cluster that stays, for `cgd VERB RUN.toml --address`. {_KUBERAY}",
    "Redis keeps the head's state: after its death the workers and what they serve go on.",
)
_SERVICE = (
    f"The student, served: `kubectl apply -f THIS_FILE`. {_KUBERAY}",
    "Clients are pods with the label cgd-client=true; TLS belongs in front of it.",
)


def render(settings: Settings, source: Source) -> dict[str, str]:
    """Return each file's path in the folder, and its text.

    Args:
        settings: of the run, overrides applied.
        source: where they are from.

    Raises:
        UserError: the run is for one machine, or no machine holds what it needs.
    """
    needs, given = sizes(settings), source.overrides

    def head(*lines: str) -> list[str]:
        made = f"Made by `{source.command}`"
        return [*lines, "", made, "from the run file, as is every number here: change that."]

    files = {
        "aws.yaml": document(ray_yaml.aws(settings, needs), head(*_AWS)),
        "machines.yaml": document(ray_yaml.machines(settings, needs), head(*_machines(needs))),
        "slurm.sh": slurm_script(settings, needs, [source.run_file, *given], head(*_SLURM)),
        "kubernetes/surroundings.yaml": documents(
            surroundings(settings, source.text), head(*_surroundings(settings))
        ),
        "kubernetes/raycluster.yaml": document(ray_cluster(settings, needs), head(*_CLUSTER)),
        "kubernetes/rayservice.yaml": document(
            ray_service(settings, needs, given), head(*_SERVICE)
        ),
    }
    for verb in JOBS:
        lines = (
            f"`cgd {verb}` on a cluster of its own: `kubectl create -f THIS_FILE`. {_KUBERAY}",
        )
        files[f"kubernetes/rayjob-{verb}.yaml"] = document(
            ray_job(settings, needs, verb, given), head(*lines, *_KUEUE)
        )
    for on_gpu in (False, True) if needs.on_gpu else (False,):
        name = "Dockerfile.gpu" if on_gpu else "Dockerfile.cpu"
        files[name] = dockerfile(on_gpu=on_gpu, header=head())
    return files


def _machines(needs: Sizes) -> list[str]:
    roles = "All take part in every stage."
    if needs.on_gpu:
        roles = "Those with a GPU draft, train and serve; the others call the teacher."
    return [
        "A Ray cluster of own machines, reached over SSH: `ray up THIS_FILE`.",
        roles,
        *ray_yaml.TOKEN_NOTE,
        "The run wants at most, stage by stage:",
        *ray_yaml.wanted(needs),
    ]


def _surroundings(settings: Settings) -> list[str]:
    make = f"kubectl -n {settings.cluster.namespace} create secret generic"
    return [
        "`kubectl apply -f THIS_FILE`: namespace, IAM account, run file, network policy, Redis.",
        "Then each key from a file; a teacher that wants none gets any word:",
        f"{make} cgd-teacher-key --from-file=api-key=FILE",
        f"{make} cgd-api-keys --from-file=api-keys=FILE # of the served student, one a line",
        f"{make} cgd-redis --from-file=password=FILE",
        f"{make} cgd-hub-token --from-file=token=FILE # if the student is behind one",
    ]
