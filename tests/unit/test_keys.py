"""Key indexes against the dictionary that they stand for."""

import random

import pytest

from cgd_ray.keys import joined, key_index, key_set


@pytest.mark.parametrize("seed", range(20))
def test_an_index_finds_what_a_dictionary_finds(seed: int) -> None:
    draw = random.Random(seed)
    alphabet = ["", "a", "b", "ab", "abc", "é", "unusable:train:ö.jsonl:3", "f" * 16 + "/0"]
    alphabet += [f"{draw.getrandbits(64):016x}/{draw.randrange(3)}" for _ in range(50)]
    pairs = [(draw.choice(alphabet), draw.randrange(1000)) for _ in range(draw.randrange(120))]
    expected: dict[str, int] = {}
    for key, number in pairs:
        expected.setdefault(key, number)
    index = key_index(pairs)
    assert len(index) == len(expected)
    assert index.find(alphabet) == [expected.get(key) for key in alphabet]
    assert [key in index for key in alphabet] == [key in expected for key in alphabet]


def test_a_set_knows_its_members() -> None:
    members = key_set(["b", "a", "b"])
    assert ("a" in members, "b" in members, "c" in members, len(members)) == (True, True, False, 2)
    assert key_set([]).find(["a"]) == [None]


def test_joined_indexes_keep_the_number_of_the_first() -> None:
    parts = [key_index([("b", 1), ("a", 2)]), key_index([]), key_index([("long key", 3), ("b", 4)])]
    index = joined(parts)
    assert index.find(["a", "b", "long key", "c"]) == [2, 1, 3, None]
    assert len(index) == 3
