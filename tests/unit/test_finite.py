"""A loss or gradient that is not a number stops training, and says which examples it came from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from cgd_ray.errors import UserError
from cgd_ray.training.finite import require_finite

LOSSES = {4: torch.tensor(2.0), 7: torch.tensor(torch.nan), 9: torch.tensor(torch.inf)}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one worker."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def ids(row: int) -> list[str]:
    return [f"p{row}/0#cgd", f"p{row}/1#cgd"]


def test_finite_steps_pass() -> None:
    require_finite(3, 2.5, 0.7, LOSSES, ids)


def test_a_loss_names_the_batches_that_it_came_from() -> None:
    with pytest.raises(UserError) as stop:
        require_finite(3, float("nan"), 1.0, LOSSES, ids)
    line = str(stop.value)
    assert "step 3" in line
    assert "batches 7, 9 (examples p7/0#cgd, p7/1#cgd, p9/0#cgd, p9/1#cgd)" in line
    assert "p4" not in line
    assert "train.learning_rate" in line
    assert "\n" not in line


def test_a_gradient_names_all_batches_of_its_step() -> None:
    losses = {1: torch.tensor(1.0), 2: torch.tensor(2.0)}
    with pytest.raises(UserError, match="norm inf, of packed batches 1, 2 "):
        require_finite(8, 1.5, float("inf"), losses, ids)


def test_a_long_list_is_cut_and_counted() -> None:
    with pytest.raises(UserError, match=r"e19 and 80 more\)"):
        require_finite(1, float("inf"), 1.0, LOSSES, lambda row: [f"e{i}" for i in range(50)])
