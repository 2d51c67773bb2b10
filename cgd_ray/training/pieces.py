"""What a worker's optimiser holds, as named pieces of parameters, whatever the ZeRO stage.

A piece is a run of one parameter's flattened elements: float32 weights and the optimiser's moments.
Pieces know nothing of workers or stages, so a state saved by any number of workers at any stage
can be taken up by any other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from cgd_ray.errors import UserError

WEIGHT = "weight"
_MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of elements of one parameter; its tensors are flat, float32 and of one length."""

    name: str  # of the parameter in the model
    start: int  # first element, in the flattened parameter
    tensors: dict[str, torch.Tensor]  # WEIGHT and moments

    @property
    def length(self) -> int:
        """The number of elements."""
        return self.tensors[WEIGHT].numel()

    def part(self, start: int, end: int) -> "Piece":
        """Return the elements from `start` to before `end`, counted within this piece."""
        cut = {kind: tensor[start:end] for kind, tensor in self.tensors.items()}
        return Piece(self.name, self.start + start, cut)

    def copy(self) -> "Piece":
        """Return a copy in the machine's memory."""
        return Piece(
            self.name, self.start, {k: t.to("cpu", copy=True) for k, t in self.tensors.items()}
        )


def held_pieces(engine: Any) -> list[Piece]:  # noqa: ANN401 - untyped library
    """Return what this worker's optimiser holds, as views: writing to them changes it.

    Without ZeRO every worker holds everything; otherwise each has pieces of its own.

    Raises:
        UserError: the optimiser is of a kind that cannot be saved.
    """
    inner = _inner(engine)
    pieces: list[Piece] = []
    for name, start, flat, first, length in _places(engine):
        state = _state(inner, flat)
        tensors = {WEIGHT: flat.detach(), **{kind: state[kind] for kind in _MOMENTS}}
        flat_tensors = {k: t.view(-1)[first : first + length] for k, t in tensors.items()}
        pieces.append(Piece(name, start, flat_tensors))
    return pieces


def shared_out(pieces: Sequence[Piece], rank: int, num_workers: int) -> list[Piece]:
    """Return one worker's share of pieces that every worker holds: an equal part of each."""
    bounds = [
        (p, p.length * rank // num_workers, p.length * (rank + 1) // num_workers) for p in pieces
    ]
    return [p.part(start, end) for p, start, end in bounds if start < end]


def pieces_to_save(engine: Any) -> list[Piece]:  # noqa: ANN401
    """Return the views that this worker saves: each element is one worker's business."""
    pieces = held_pieces(engine)
    if engine.zero_optimization_stage() == 0:
        return shared_out(pieces, dist.get_rank(), dist.get_world_size())
    return pieces


def optimizer_step(engine: Any) -> float:  # noqa: ANN401
    """Return the optimiser's own count of steps, which its bias correction uses."""
    steps = [state["step"] for state in _inner(engine).state.values() if "step" in state]
    return float(steps[0]) if steps else 0.0


def set_optimizer_step(engine: Any, step: float) -> None:  # noqa: ANN401
    """Set the optimiser's own count of steps."""
    for state in _inner(engine).state.values():
        state["step"].fill_(step)


def weights_follow(engine: Any) -> None:  # noqa: ANN401
    """Make the model's weights those of the optimiser, after these were written to."""
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        flats = zip(
            optimizer.fp16_partitioned_groups_flat,
            optimizer.fp32_partitioned_groups_flat,
            strict=True,
        )
        for low, high in flats:
            low.data.copy_(high.data)
        if optimizer.persistent_parameters:  # small ones, which are whole on every worker
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.checkpoint_event_epilogue()
    elif hasattr(optimizer, "update_lp_params"):
        optimizer.update_lp_params()
    else:
        for low, high in _low_and_high(engine):
            if low is not high:
                low.data.copy_(high.data)


_Place = tuple[str, int, torch.Tensor, int, int]  # name, start, flat tensor, first in it, length


def _places(engine: Any) -> Iterator[_Place]:  # noqa: ANN401
    """Yield where the optimiser holds which elements of which parameter."""
    optimizer = engine.optimizer
    named = [(n, p) for n, p in engine.module.named_parameters() if p.requires_grad]
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):  # ZeRO 3
        for name, parameter in named:
            group, first, width = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = width * dist.get_rank()
            length = min(width, parameter.ds_numel - start)
            if length > 0:
                flat = optimizer.fp32_partitioned_groups_flat[group]
                yield name, start, flat, first, length
    elif hasattr(optimizer, "update_lp_params"):  # ZeRO 1 and 2
        groups = optimizer.optimizer.param_groups
        for name, parameter in named:
            mapping = parameter._hp_mapping
            if mapping is not None:
                flat = groups[mapping.param_group_index]["params"][0]
                high = mapping.hp_fragment_address
                yield name, mapping.lp_fragment_address.start, flat, high.start, high.numel
    else:
        masters = {id(low): high for low, high in _low_and_high(engine)}
        for name, parameter in named:
            yield name, 0, masters[id(parameter)], 0, parameter.numel()


def _low_and_high(engine: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:  # noqa: ANN401
    """Yield each weight without ZeRO, and the float32 one that the optimiser keeps for it."""
    optimizer = engine.optimizer
    if isinstance(optimizer, torch.optim.Optimizer):  # float32: one and the same
        for group in optimizer.param_groups:
            yield from zip(group["params"], group["params"], strict=True)
    elif hasattr(optimizer, "fp32_groups"):
        for lows, highs in zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True):
            yield from zip(lows, highs, strict=True)
    else:
        raise UserError(
            f"states of {type(optimizer).__name__} cannot be saved: set train.zero_stage=1"
        )


def _inner(engine: Any) -> torch.optim.Optimizer:  # noqa: ANN401
    """Return the optimiser proper, below DeepSpeed's."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _state(inner: torch.optim.Optimizer, flat: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the optimiser's state of a tensor, zero before its first step as AdamW makes it."""
    state = inner.state[flat]
    if "step" not in state:
        fused = inner.param_groups[0].get("fused")
        state["step"] = torch.zeros((), device=flat.device if fused else "cpu")
    for kind in _MOMENTS:
        if kind not in state:
            state[kind] = torch.zeros_like(flat, memory_format=torch.preserve_format)
    return state
