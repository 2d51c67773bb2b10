"""From rates and work a prompt to nodes, hours and dollars: pure arithmetic.

Drafts and teacher stream, so generation lasts as long as the slower of the two and its nodes are
paid for that long; training follows. The head is up from the first to the last.
"""

import math
from dataclasses import dataclass

SERVER = "teacher's model"  # the pool's name
_HOUR_S = 3600.0
_DAY_H = 24.0


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes of one role."""

    name: str
    instance: str
    num_nodes: int  # at most
    usd_an_hour: float  # of a node, on demand
    spot_usd_an_hour: float | None = None  # None: it is not on spot


@dataclass(frozen=True, slots=True)
class Work:
    """What one prompt asks for, on average."""

    drafts: float
    taught: float  # drafts that the teacher is asked about
    teacher_usd: float | None  # for all of its calls; None: the price is not known
    trained_tokens: float  # over all epochs
    platform_core_s: float  # CPU of Ray and of our own code


@dataclass(frozen=True, slots=True)
class Rates:
    """What the pools do a second, all nodes together."""

    drafts: float
    taught: float | None  # as calls at once and limits allow; None: by a batch API, in a day
    taught_a_server: float | None  # by one server of one's own; None: a provider answers
    trained_tokens: float


@dataclass(frozen=True, slots=True)
class Pools:
    """The nodes of a run."""

    head: Pool
    drafts: Pool
    teacher: Pool
    training: Pool
    server: Pool | None = None  # that the teacher's model runs on; None: a provider's


@dataclass(frozen=True, slots=True)
class PoolNeed:
    """What a pool is needed for."""

    pool: Pool
    num_nodes: int
    hours: float
    usd: float  # on demand
    usd_as_set: float  # with spot prices where the pool is on spot
    nodes_for_a_day: int | None  # that would do it in a day; None: more would change nothing

    @property
    def node_hours(self) -> float:
        """Hours of all nodes."""
        return self.num_nodes * self.hours


@dataclass(frozen=True, slots=True)
class Needs:
    """What so many prompts need."""

    num_prompts: int
    num_drafts: float
    num_taught: float
    trained_tokens: float
    pools: tuple[PoolNeed, ...]
    generation_h: float
    training_h: float
    drafting_h: float  # were there no teacher to wait for
    teaching_h: float  # were there no drafts to wait for
    teacher_usd: float | None
    platform_core_h: float

    @property
    def hours(self) -> float:
        """From the first prompt to the trained student."""
        return self.generation_h + self.training_h

    @property
    def nodes_usd(self) -> float:
        """Dollars of all nodes on demand."""
        return sum(need.usd for need in self.pools)

    @property
    def nodes_usd_as_set(self) -> float:
        """Dollars of all nodes, some on spot."""
        return sum(need.usd_as_set for need in self.pools)


def needs(num_prompts: int, work: Work, rates: Rates, pools: Pools) -> Needs:
    """Return what so many prompts need.

    Servers of the teacher's own are as many as keep up with the drafts.

    Args:
        num_prompts: to train on.
        work: for each of them.
        rates: of the pools.
        pools: the nodes.
    """
    drafts, taught = num_prompts * work.drafts, num_prompts * work.taught
    tokens = num_prompts * work.trained_tokens
    drafting_h, teaching_h = drafts / rates.drafts / _HOUR_S, _DAY_H
    generation_h, drafts_up_h = drafting_h + teaching_h, drafting_h  # batches wait for all drafts
    if rates.taught is not None:
        teaching_h = taught / rates.taught / _HOUR_S
        generation_h = drafts_up_h = max(drafting_h, teaching_h)
    servers: list[PoolNeed] = []
    if pools.server is not None and rates.taught_a_server:
        server_h = taught / rates.taught_a_server / _HOUR_S
        num_servers = math.ceil(server_h / generation_h)
        servers = [_need(pools.server, generation_h, num_servers, server_h)]
    training_h = tokens / rates.trained_tokens / _HOUR_S
    drafting_node_h = drafting_h * pools.drafts.num_nodes
    training_node_h = training_h * pools.training.num_nodes
    return Needs(
        num_prompts=num_prompts,
        num_drafts=drafts,
        num_taught=taught,
        trained_tokens=tokens,
        pools=(
            _need(pools.head, generation_h + training_h),
            _need(pools.drafts, drafts_up_h, node_hours=drafting_node_h),
            _need(pools.teacher, generation_h),
            *servers,
            _need(pools.training, training_h, node_hours=training_node_h),
        ),
        generation_h=generation_h,
        training_h=training_h,
        drafting_h=drafting_h,
        teaching_h=teaching_h,
        teacher_usd=None if work.teacher_usd is None else num_prompts * work.teacher_usd,
        platform_core_h=num_prompts * work.drafts * work.platform_core_s / _HOUR_S,
    )


def _need(
    pool: Pool, hours: float, num_nodes: int | None = None, node_hours: float | None = None
) -> PoolNeed:
    """Return a pool's need; `node_hours` is its own work, the nodes for a day follow from it."""
    nodes = pool.num_nodes if num_nodes is None else num_nodes
    usd = nodes * hours * pool.usd_an_hour
    spot = pool.spot_usd_an_hour
    return PoolNeed(
        pool=pool,
        num_nodes=nodes,
        hours=hours,
        usd=usd,
        usd_as_set=usd if spot is None else nodes * hours * spot,
        nodes_for_a_day=None if node_hours is None else max(1, math.ceil(node_hours / _DAY_H)),
    )


@dataclass(frozen=True, slots=True)
class Engine:
    """A decoder on some GPUs, as far as its speed follows from their data sheet."""

    num_parameters: float
    kv_bytes_a_token: float
    gpu_bytes_per_s: float  # of all its GPUs, like the next two
    gpu_flops: float
    gpu_num_bytes: float
    max_sequences: int
    share: float  # of what the data sheet allows that is reached


def generated_per_s(engine: Engine, context: float) -> float:
    """Return the tokens that an engine writes a second, its places all taken.

    Each step reads all weights and the key-value cache of every sequence, and computes two FLOPs a
    weight for every sequence: the slower of the two counts.

    Args:
        engine: of the model.
        context: tokens before the one that is written, on average.
    """
    weights = 2.0 * engine.num_parameters
    room = max(0.0, 0.9 * engine.gpu_num_bytes - weights)
    fitting = room / (engine.kv_bytes_a_token * context)
    sequences = max(1.0, min(float(engine.max_sequences), fitting))
    read = weights + sequences * engine.kv_bytes_a_token * context
    computed = sequences * 2.0 * engine.num_parameters
    step_s = max(read / engine.gpu_bytes_per_s, computed / engine.gpu_flops)
    return engine.share * sequences / step_s


def answers_per_s(
    engine: Engine, num_input: float, num_output: float, num_cached: float = 0.0
) -> float:
    """Return the answers that an engine gives a second: prompts are read, then tokens written.

    Args:
        engine: of the model.
        num_input: tokens of a prompt.
        num_output: tokens of an answer.
        num_cached: tokens of the prompt that the engine's prefix cache holds.
    """
    read = num_input - num_cached
    reading_s = read * 2.0 * engine.num_parameters / (engine.share * engine.gpu_flops)
    writing_s = num_output / generated_per_s(engine, num_input + num_output / 2)
    return 1.0 / (reading_s + writing_s)


def trained_per_s(
    num_parameters: float, gpu_flops: float, mfu: float, trained_share: float = 1.0
) -> float:
    """Return the tokens trained on a second: 6 FLOPs a weight, of frozen weights 4.

    Args:
        num_parameters: of the student.
        gpu_flops: of all workers together.
        mfu: model FLOPs utilisation.
        trained_share: of the weights.
    """
    return mfu * gpu_flops / ((4.0 + 2.0 * trained_share) * num_parameters)
