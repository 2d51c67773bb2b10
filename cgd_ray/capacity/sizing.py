"""From a run file and figures to the work of a prompt, the rates of a second and the nodes: pure.

The nodes are those that `cgd cluster render` writes for the run.
"""

from dataclasses import dataclass

from cgd_ray.capacity.figures import (
    CPU_SAMPLER,
    CPU_TRAINER,
    Figure,
    Figures,
    price_figures,
    with_figures,
)
from cgd_ray.capacity.needs import (
    SERVER,
    Engine,
    Pool,
    Pools,
    Rates,
    Work,
    answers_per_s,
    generated_per_s,
    trained_per_s,
)
from cgd_ray.capacity.nodes import gpu_of
from cgd_ray.cluster.ec2 import Instance, choose, units_on
from cgd_ray.cluster.sizes import Need, Sizes, sizes
from cgd_ray.errors import UserError
from cgd_ray.plan import derive, student_shape
from cgd_ray.settings import EMBEDDED_STUDENT, LocalSettings, Settings
from cgd_ray.teacher.prices import price_of, tokens_usd
from cgd_ray.training.memory import ModelShape

_CALL_S = 1.0  # of a call besides the writing of its answer
_SERVER = "p5.48xlarge"  # that a teacher's open weights are taken to run on
_SERVER_SEQUENCES = 512
_KV_SHARE = 1 / 61_000  # bytes of key-value cache a token and parameter: Llama 3.1 8B's
_ROWS = 1_000_000  # that are priced at once: tokens are whole


@dataclass(frozen=True, slots=True)
class Machines:
    """The EC2 types and nodes of a run."""

    sizes: Sizes
    head: Instance
    teacher: Instance
    sampler: Instance
    trainer: Instance

    @property
    def names(self) -> list[str]:
        """The EC2 types, each once."""
        used = (self.head, self.teacher, self.sampler, self.trainer)
        return list(dict.fromkeys(instance.name for instance in used))


def prices_of(settings: Settings, machines: Machines) -> Figures:
    """Return the prices of the nodes that are used."""
    server = [_SERVER] if _teacher_model(settings) else []
    spot = [machines.sampler.name] if settings.cluster.spot_samplers else []
    return price_figures(dict.fromkeys([*machines.names, *server]), spot)


def machines_of(settings: Settings) -> Machines:
    """Return the nodes of a run on a cluster; servers of one machine are left out.

    Raises:
        UserError: no EC2 type holds a part of it, or the student's size is not known.
    """
    shared = settings.model_copy(
        update={
            "local": LocalSettings(),
            "run": settings.run.model_copy(update={"root": "s3://bucket"}),
        }
    )
    need, c = sizes(shared), settings.cluster
    return Machines(
        sizes=need,
        head=choose(need.head, c.head_instance),
        teacher=choose(need.teacher, c.teacher_instance),
        sampler=choose(need.sampler, c.sampler_instance),
        trainer=choose(need.trainer, c.trainer_instance),
    )


def with_rates(settings: Settings, machines: Machines, figures: Figures) -> Figures:
    """Return figures with the speeds of an engine and of training, where nothing says them.

    Raises:
        UserError: nothing is known of the student's speed.
    """
    more: list[Figure] = []
    if "sampler_tokens_per_s" not in figures:
        more.append(_sampler_speed(settings, machines, figures))
    if "trainer_tokens_per_s" not in figures:
        more.append(_trainer_speed(settings, machines, figures))
    return with_figures(figures, more)


def pools_of(settings: Settings, machines: Machines, figures: Figures) -> Pools:
    """Return the pools of nodes with their prices."""
    need = machines.sizes

    def pool(name: str, of: Need, instance: Instance, *, spot: bool = False) -> Pool:
        nodes = -(-of.num // units_on(of, instance))
        spot_usd = figures[f"spot_usd.{instance.name}"].value if spot else None
        return Pool(name, instance.name, nodes, figures[f"usd.{instance.name}"].value, spot_usd)

    server = None
    if _teacher_model(settings) is not None:
        server = Pool(SERVER, _SERVER, 1, figures[f"usd.{_SERVER}"].value)
    return Pools(
        head=pool("head", need.head, machines.head),
        drafts=pool("drafts", need.sampler, machines.sampler, spot=settings.cluster.spot_samplers),
        teacher=pool("teacher's calls", need.teacher, machines.teacher),
        training=pool("training", need.trainer, machines.trainer),
        server=server,
    )


def used(figures: Figures, pools: Pools) -> Figures:
    """Return figures without those that the run's speeds do not follow from."""
    sheets = {
        name: gpu_of(pool.instance) is not None and figures[name].kind == "assumed"
        for name, pool in (
            ("sampler_tokens_per_s", pools.drafts),
            ("trainer_tokens_per_s", pools.training),
        )
    }
    needed = {
        "engine_share": sheets["sampler_tokens_per_s"] or pools.server is not None,
        "ray_share": sheets["sampler_tokens_per_s"],
        "mfu": sheets["trainer_tokens_per_s"],
    }
    return {name: figure for name, figure in figures.items() if needed.get(name, True)}


def work_of(settings: Settings, figures: Figures) -> Work:
    """Return the work of one prompt."""
    value = {name: figure.value for name, figure in figures.items()}
    drafts = settings.sampling.num_drafts
    taught = drafts * value["drafted_share"]
    kept = taught * value["refined_share"] * value["kept_share"]
    price = price_of(settings.teacher)
    answered = value["critique_tokens"] + value["refinement_tokens"]
    usd = None
    if price is not None:
        tokens = value["teacher_input_tokens"], value["teacher_cached_tokens"], answered
        usd = taught * tokens_usd(price, *(round(n * _ROWS) for n in tokens)) / _ROWS
    return Work(
        drafts=drafts,
        taught=taught,
        teacher_usd=usd,
        trained_tokens=kept * value["example_tokens"] * settings.train.num_epochs,
        platform_core_s=value["platform_core_ms_a_draft"] / 1000,
    )


def rates_of(settings: Settings, figures: Figures) -> Rates:
    """Return what all nodes do a second."""
    value = {name: figure.value for name, figure in figures.items()}
    answered = value["critique_tokens"] + value["refinement_tokens"]
    own, a_server = _teacher_model(settings), None
    if own is not None:
        parameters, shape = own
        engine = _engine(parameters, shape, _SERVER, 8, _SERVER_SEQUENCES, value["engine_share"])
        tokens = (value["teacher_input_tokens"], answered, value["teacher_cached_tokens"])
        turns = settings.teacher.turns
        a_server = answers_per_s(engine, *(number / turns for number in tokens)) / turns
    engines_per_s = value["sampler_tokens_per_s"] / value["draft_tokens"]
    return Rates(
        drafts=engines_per_s * settings.sampling.max_replicas,
        taught=_taught_per_s(settings, value["teacher_input_tokens"] + answered, figures),
        taught_a_server=a_server,
        trained_tokens=value["trainer_tokens_per_s"],
    )


def _taught_per_s(settings: Settings, tokens_a_row: float, figures: Figures) -> float | None:
    """Return the drafts a second that the teacher's limits allow; None: a batch API."""
    t = settings.teacher
    if t.mode == "batch":
        return None
    answered = figures["critique_tokens"].value + figures["refinement_tokens"].value
    row_s = t.turns * _CALL_S + answered / figures["answer_tokens_per_s"].value
    limits = [t.max_in_flight * t.num_actors / row_s]
    if t.max_requests_per_minute:
        limits.append(t.max_requests_per_minute / 60 / t.turns)
    if t.max_tokens_per_minute:
        limits.append(t.max_tokens_per_minute / 60 / tokens_a_row)
    return min(limits)


def _sampler_speed(settings: Settings, machines: Machines, figures: Figures) -> Figure:
    s, name = settings.sampling, "sampler_tokens_per_s"
    gpu = gpu_of(machines.sampler.name) if machines.sizes.sampler.gpus else None
    if gpu is None:
        if settings.student.model == EMBEDDED_STUDENT:
            return CPU_SAMPLER
        raise UserError(
            f"no speed is known of student.model={settings.student.model} on CPU nodes: measure "
            f"it and give --assume {name}=..., or set sampling.accelerator=gpu"
        )
    num_gpus = s.tensor_parallel_size * s.pipeline_parallel_size * s.num_gpus
    parameters, share = derive(settings).num_parameters, figures["engine_share"].value
    assert parameters is not None  # else the nodes have no size
    engine = _engine(
        parameters,
        student_shape(settings.student.model),
        machines.sampler.name,
        num_gpus,
        s.max_num_seqs,
        share,
    )
    prompt, draft = figures["prompt_tokens"].value, figures["draft_tokens"].value
    speed = draft * answers_per_s(engine, prompt, draft) * figures["ray_share"].value
    writing = generated_per_s(engine, prompt + draft / 2)
    source = (
        f"{num_gpus:g} x {gpu.name} by its data sheet: {writing:,.0f} while it writes, less for "
        "prompts and Ray"
    )
    return Figure(name, speed, "tokens/s an engine", "assumed", source)


def _trainer_speed(settings: Settings, machines: Machines, figures: Figures) -> Figure:
    t, name, unit = settings.train, "trainer_tokens_per_s", "tokens/s, all workers"
    gpu = gpu_of(machines.trainer.name) if machines.sizes.trainer.gpus else None
    workers = t.max_workers
    if gpu is None:
        if settings.student.model == EMBEDDED_STUDENT:
            source = f"{workers} x {CPU_TRAINER.value:g}: {CPU_TRAINER.source}"
            kind = "measured" if workers == 1 else "assumed"
            return Figure(name, workers * CPU_TRAINER.value, unit, kind, source)
        raise UserError(
            f"no speed is known of training {settings.student.model} on CPU nodes: measure it and "
            f"give --assume {name}=..., or set train.accelerator=gpu"
        )
    parameters, shape = derive(settings).num_parameters, student_shape(settings.student.model)
    assert parameters is not None  # else the nodes have no size
    trained = 1.0
    if t.lora.rank:
        adapters = shape.num_adapter_parameters(t.lora.rank) if shape else 0
        trained = adapters / parameters
    speed = trained_per_s(parameters, workers * gpu.flops, figures["mfu"].value, trained)
    source = f"{workers} x {gpu.name} by its data sheet, {figures['mfu'].value:.0%} of it (mfu)"
    return Figure(name, speed, unit, "assumed", source)


def _engine(
    parameters: float,
    shape: ModelShape | None,
    instance: str,
    num_gpus: float,
    max_sequences: int,
    share: float,
) -> Engine:
    gpu = gpu_of(instance)
    assert gpu is not None  # the caller chose it for its GPUs
    kv_bytes = parameters * _KV_SHARE
    if shape is not None:
        kv_bytes = 2 * 2 * shape.num_layers * shape.num_key_value_heads * shape.head_dim
    return Engine(
        num_parameters=parameters,
        kv_bytes_a_token=kv_bytes,
        gpu_bytes_per_s=num_gpus * gpu.bytes_per_s,
        gpu_flops=num_gpus * gpu.flops,
        gpu_num_bytes=num_gpus * gpu.num_bytes,
        max_sequences=max_sequences,
        share=share,
    )


def _teacher_model(settings: Settings) -> tuple[float, ModelShape] | None:
    """Return size and shape of a teacher that is served by oneself; None: it has a price.

    Or nothing is known of it.
    """
    if price_of(settings.teacher) is not None:
        return None
    shape = student_shape(settings.teacher.model)
    return None if shape is None else (float(shape.num_parameters), shape)
