"""What machines a run needs, from its settings alone. Pure.

A need is cut into units: the smallest share of a machine that makes sense alone, such as the GPUs
of one engine. A unit is a pod on Kubernetes; EC2 machines take as many units as their GPUs allow.
Memory is a machine's own; what a GPU must hold is apart.
"""

from dataclasses import dataclass
from math import ceil

from cgd_ray.errors import UserError
from cgd_ray.placement import Role
from cgd_ray.plan import Plan, derive
from cgd_ray.settings import Settings

_GIB = 2**30
_WEIGHTS_SHARE = 0.7  # of a GPU's memory, as in serving: the rest is for the key-value cache
_TRAINING_SHARE = 0.9  # of a GPU's memory: a tenth is the allocator's
_OWN_SHARE = 0.7  # of a machine's memory: Ray takes 30 % for its object store
_PROCESS_GIB = 3.0  # of a process with torch and its libraries, without weights
_LOADED_GIB = 9.3  # of weights at once where they are sharded as they load: two files of 5 GB
_ACTORS_A_NODE = 8  # that call the teacher, half a CPU each
_GPUS_A_NODE = 8  # of a node that trains, unless there is one worker
_DISK_GIB = 40  # of an installation, logs and what Ray spills
_ENGINE_CORES = 4  # of a CPU engine or trainer


@dataclass(frozen=True, slots=True)
class Need:
    """Machines of one role."""

    role: Role
    num: int  # of units, at most
    cpus: int  # cores of a unit
    memory_gib: int  # of a unit
    disk_gib: int  # of a unit
    ray_cpus: int  # of a unit as Ray counts them
    gpus: int = 0  # of a unit
    gpu_gib: int = 0  # that each GPU must have
    linked: bool = False  # its GPUs exchange gradients
    note: str = ""  # where the numbers come from
    remedy: str = ""  # what to change where no machine suffices

    @property
    def words(self) -> str:
        """Return one unit in words."""
        gpus = f"{_count(self.gpus, 'GPU')} of {self.gpu_gib} GiB, " if self.gpus else ""
        return f"{gpus}{self.cpus} CPUs and {self.memory_gib} GiB of memory"


@dataclass(frozen=True, slots=True)
class Sizes:
    """All machines of a run, at their most."""

    head: Need
    teacher: Need
    sampler: Need
    trainer: Need
    server: Need

    @property
    def workers(self) -> tuple[Need, ...]:
        """Return all but the head."""
        return (self.teacher, self.sampler, self.trainer, self.server)

    @property
    def on_gpu(self) -> bool:
        """Return whether any machine needs a GPU."""
        return any(need.gpus for need in self.workers)


def sizes(settings: Settings) -> Sizes:
    """Return the machines of a run.

    An `accelerator` of "auto" means CPU here: a cluster that grows has no GPU before it is asked
    for one.

    Raises:
        UserError: the run is for one machine, or the student's size is not known.
    """
    _check_shared(settings)
    plan = derive(settings)
    if plan.num_parameters is None:
        raise UserError(
            f"student.model={settings.student.model} is not here to be measured: set "
            "student.num_parameters"
        )
    return Sizes(
        head=_head(settings, plan),
        teacher=_teacher(settings),
        sampler=_sampler(settings, plan),
        trainer=_trainer(settings, plan),
        server=_server(settings, plan),
    )


def _check_shared(settings: Settings) -> None:
    for name in ("s3_server", "tutor"):
        if getattr(settings.local, name):
            raise UserError(
                f"local.{name}=true starts a server for one machine, which other nodes cannot "
                f"reach: set local.{name}=false, and run.root and teacher.base_url to your own"
            )
    if not settings.run.root.startswith(("s3://", "/")):
        raise UserError(
            f"run.root={settings.run.root} is a folder of one machine: set run.root=s3://..., or "
            "the absolute path of a folder that all machines share"
        )


def _head(s: Settings, plan: Plan) -> Need:
    engines = s.sampling.max_replicas
    memory = 8 + engines / 4 + (plan.num_drafts or 0) / 1e6
    return Need(
        role="head",
        num=1,
        cpus=4 + engines // 4,
        ray_cpus=4 + engines // 4,
        memory_gib=ceil(memory / _OWN_SHARE),
        disk_gib=ceil(_DISK_GIB + _gib(plan.weight_bytes)),
        note=f"the driver, and rows for {_count(engines, 'engine')} (sampling.max_replicas)",
        remedy="lower sampling.max_replicas",
    )


def _teacher(s: Settings) -> Need:
    actors = s.teacher.num_actors
    on_one = min(actors, _ACTORS_A_NODE)
    return Need(
        role="teacher",
        num=-(-actors // _ACTORS_A_NODE),
        cpus=max(2, ceil(on_one / 2)),
        ray_cpus=max(2, ceil(on_one / 2)),
        memory_gib=ceil((1 + on_one) / _OWN_SHARE),
        disk_gib=_DISK_GIB,
        note=f"{_count(actors, 'actor')} (teacher.num_actors), half a CPU each",
    )


def _sampler(s: Settings, plan: Plan) -> Need:
    t = s.sampling
    parts = t.tensor_parallel_size * t.pipeline_parallel_size
    echo, engines = t.engine == "echo", _count(t.max_replicas, "engine")
    if t.accelerator == "gpu" and not echo:
        on_one = int(1 / t.num_gpus)  # engines that share a GPU
        share = "" if on_one == 1 else f", {on_one} on a GPU (sampling.num_gpus)"
        return _gpu_engines(
            "sampler",
            num=-(-t.max_replicas // on_one),
            gpus=parts,
            weights=plan.weight_bytes or 0,
            share=t.num_gpus,
            models=1,
            note=f"{engines} (sampling.max_replicas) of {_count(parts, 'GPU')}{share}",
            remedy="raise sampling.tensor_parallel_size",
        )
    memory = 1 if echo else _gib(plan.weight_bytes) + t.kv_cache_gib + _PROCESS_GIB
    return Need(
        role="sampler",
        num=t.max_replicas,
        cpus=_ENGINE_CORES * parts,
        ray_cpus=parts,  # one engine a machine: it takes all cores
        memory_gib=ceil(memory / _OWN_SHARE),
        disk_gib=ceil(_DISK_GIB + _gib(plan.weight_bytes)),
        note=f"{engines} (sampling.max_replicas), each with "
        f"{t.kv_cache_gib} GiB of key-value cache (sampling.kv_cache_gib)",
        remedy="lower sampling.kv_cache_gib",
    )


def _server(s: Settings, plan: Plan) -> Need:
    t = s.serve
    models = max(2, len(t.models))  # an evaluation serves base and student
    engines = models * t.max_replicas
    note = f"{models} models x {_count(t.max_replicas, 'engine')} (serve.max_replicas)"
    if t.accelerator == "gpu":
        return _gpu_engines(
            "server",
            num=engines,
            gpus=t.tensor_parallel_size or s.sampling.tensor_parallel_size,
            weights=plan.weight_bytes or 0,
            models=models,
            note=note,
            remedy="raise serve.tensor_parallel_size",
        )
    memory = _gib(plan.weight_bytes) + t.kv_cache_gib + _PROCESS_GIB
    return Need(
        role="server",
        num=engines,
        cpus=_ENGINE_CORES,
        ray_cpus=3,  # the replica, its engine, and one for the gateway on one of the machines
        memory_gib=ceil(memory / _OWN_SHARE),
        disk_gib=ceil(_DISK_GIB + models * _gib(plan.weight_bytes)),
        note=f"{note}, each with {t.kv_cache_gib} GiB of key-value cache (serve.kv_cache_gib)",
        remedy="lower serve.kv_cache_gib",
    )


def _gpu_engines(
    role: Role,
    *,
    num: int,
    gpus: int,
    weights: float,
    models: int,
    note: str,
    remedy: str,
    share: float = 1.0,
) -> Need:
    """Return a unit of one engine, or of those that share a GPU.

    The weights take 70 % of the engine's share of GPU memory at most.
    """
    cpus = max(4, 2 + 2 * gpus)
    return Need(
        role=role,
        num=num,
        cpus=cpus,
        ray_cpus=cpus,
        memory_gib=ceil((_gib(weights) + _PROCESS_GIB * gpus) / _OWN_SHARE),
        disk_gib=ceil(_DISK_GIB + models * _gib(weights)),
        gpus=gpus,
        gpu_gib=ceil(_gib(weights) / _WEIGHTS_SHARE / gpus / share),
        note=note,
        remedy=remedy,
    )


def _trainer(s: Settings, plan: Plan) -> Need:
    t = s.train
    on_gpu = t.accelerator == "gpu"
    on_one = _GPUS_A_NODE if on_gpu and t.max_workers > 1 else 1
    num = -(-t.max_workers // on_one)
    known = plan.training_memory
    peak = _gib(known.peak if known else plan.training_bytes_a_worker)
    missing = "" if known else ", without activations (the student's shape is not known here)"
    host = _PROCESS_GIB + (_loading_gib(s, plan) if on_gpu else peak)
    return Need(
        role="trainer",
        num=num,
        cpus=_ENGINE_CORES * on_one,
        ray_cpus=_ENGINE_CORES * on_one if on_gpu else 1,  # one worker a machine: it takes all
        memory_gib=ceil(on_one * host / _OWN_SHARE),
        disk_gib=ceil(
            _DISK_GIB
            + t.data_cache_gib
            + 2 * _gib(plan.weight_bytes)
            + 2 * _gib(plan.state_bytes) / num  # one on its way to the store, one being written
        ),
        gpus=on_one if on_gpu else 0,
        gpu_gib=ceil(peak / _TRAINING_SHARE) if on_gpu else 0,
        linked=on_one > 1,
        note=f"{_count(t.max_workers, 'worker')} (train.num_workers), at most {peak:.1f} GiB each "
        f"by the memory formula{missing}",
        remedy="see docs/training.md for a higher train.zero_stage or more train.num_workers",
    )


def _loading_gib(s: Settings, plan: Plan) -> float:
    """Return what a worker on a GPU holds in the machine's memory."""
    t, weights = s.train, _gib(plan.weight_bytes)
    loaded = min(weights, _LOADED_GIB) if t.zero_stage == 3 else weights
    optimizer = 12 * (plan.num_parameters or 0) / _GIB / t.min_workers
    of_weights = weights / t.min_workers if t.offload_parameters else 0
    return loaded + (optimizer if t.offload_optimizer else 0) + of_weights


def _gib(num_bytes: float | None) -> float:
    return (num_bytes or 0) / _GIB


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
