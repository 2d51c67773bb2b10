"""Rows that bring engines down: found, set aside, and nobody else with them."""

from itertools import combinations

import pytest

from cgd_ray.sampling.guard import (
    Chunk,
    batch_name,
    count_deaths,
    marker_name,
    max_deaths,
    plan_chunks,
    split,
)


def run_to_the_end(num_rows: int, poison: set[int], max_attempts: int) -> tuple[set[int], int]:
    """Play a lost batch against an engine that dies of some rows; return who is given up on."""
    deaths: dict[Chunk, int] = {}
    num_deaths = 1  # the one that made the batch a suspect
    while True:
        plan = plan_chunks(num_rows, deaths, max_attempts)
        rows = [row for chunk in plan.chunks for row in range(chunk.start, chunk.stop)]
        assert sorted([*rows, *plan.poison]) == list(range(num_rows))
        for chunk in plan.chunks:
            if any(chunk.start <= row < chunk.stop for row in poison):
                deaths[chunk] = deaths.get(chunk, 0) + 1
                num_deaths += 1
                break
        else:
            return set(plan.poison), num_deaths


@pytest.mark.parametrize("num_rows", [*range(1, 40), 64, 65, 256])
@pytest.mark.parametrize("max_attempts", [1, 3])
def test_one_poison_row_anywhere_is_found_within_the_bound(num_rows: int, max_attempts: int):
    worst = 0
    for row in range(num_rows):
        found, num_deaths = run_to_the_end(num_rows, {row}, max_attempts)
        assert found == {row}
        worst = max(worst, num_deaths)
    assert worst == max_deaths(num_rows, max_attempts)


def test_the_bound_by_hand():
    assert max_deaths(64, 3) == 1 + 3 + 3  # beside others; 64, 16 and 4 rows; alone
    assert max_deaths(1, 1) == 2


@pytest.mark.parametrize("num_poison", [0, 2, 3])
def test_several_poison_rows_are_found_and_nobody_else(num_poison: int):
    for poison in map(set, combinations(range(11), num_poison)):
        found, num_deaths = run_to_the_end(11, poison, 2)
        assert found == poison
        assert num_deaths <= 1 + num_poison * (max_deaths(11, 2) - 1)


def test_a_batch_of_nothing_but_poison_ends():
    assert run_to_the_end(16, set(range(16)), 2)[0] == set(range(16))


def test_a_lost_batch_runs_whole_first_then_the_likely_killers():
    assert plan_chunks(64, {}, 3).chunks == (Chunk(0, 64),)
    deaths = {Chunk(0, 64): 1, Chunk(16, 32): 1, Chunk(20, 24): 1, Chunk(21, 22): 2}
    plan = plan_chunks(64, deaths, 3)
    assert plan.chunks[:4] == (Chunk(20, 21), Chunk(21, 22), Chunk(22, 23), Chunk(23, 24))
    assert plan.chunks[-3:] == (Chunk(0, 16), Chunk(32, 48), Chunk(48, 64))
    assert plan.poison == ()
    assert plan_chunks(64, deaths | {Chunk(21, 22): 3}, 3).poison == (21,)


@pytest.mark.parametrize("num_rows", range(2, 70))
def test_parts_cover_a_chunk_and_are_smaller(num_rows: int):
    parts = split(Chunk(5, 5 + num_rows))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(
        range(5, 5 + num_rows)
    )
    assert 2 <= len(parts) <= 4
    assert all(0 < part.num_rows < num_rows for part in parts)


def test_markers_say_which_chunk_and_are_counted():
    names = [marker_name(Chunk(0, 64), 1), marker_name(Chunk(3, 4), 1), marker_name(Chunk(3, 4), 2)]
    assert len(set(names)) == 3
    assert count_deaths(names) == {Chunk(0, 64): 1, Chunk(3, 4): 2}


def test_a_batch_has_the_name_of_its_rows_in_order():
    assert batch_name(["a/0", "b/0"]) == batch_name(["a/0", "b/0"])
    assert batch_name(["a/0", "b/0"]) != batch_name(["b/0", "a/0"])
    assert batch_name(["\ud800/0"])
