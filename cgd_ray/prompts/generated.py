"""Problems of a reasoning-gym family."""

import hashlib
from collections.abc import Iterator
from typing import Any

from cgd_ray.errors import UserError
from cgd_ray.prompts.locations import GENERATED
from cgd_ray.prompts.rows import Row

_MOST = 1_000_000


def generated_rows(location: str, options: dict[str, Any], seed: int, split: str) -> Iterator[Row]:
    """Yield problems, many more than are asked for, under `prompt` and `answer`: some repeat.

    Raises:
        UserError: the family or an option does not exist, or the family has run out of problems.
    """
    import reasoning_gym  # seconds, and only these sources need it

    family = location.removeprefix(GENERATED)
    first = _stream_seed(seed, split)
    try:
        problems = reasoning_gym.create_dataset(family, size=_MOST, seed=first, **options)
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"'{location}' with prompts.options={options}: {error}") from error
    misses = 0
    seen: set[int] = set()
    for index in range(_MOST):
        item = problems[index]
        question = hash(item["question"])
        misses = misses + 1 if question in seen else 0
        if misses > 1000:
            raise UserError(
                f"'{location}' with prompts.options={options} has only {len(seen)} different "
                "problems: lower prompts.num_train or prompts.num_test"
            )
        seen.add(question)
        yield Row(family, index, {"prompt": item["question"], "answer": item["answer"]})


def _stream_seed(seed: int, split: str) -> int:
    """Return a seed for the generator, which draws problem i from seed + i: neighbours overlap."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{split}".encode()).digest()[:6])
