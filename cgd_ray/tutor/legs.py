"""Problems in words that count legs: how many kinds of animals have how many legs each.

The family is reasoning-gym's `leg_counting`. A student must know the animals, multiply and add.
"""

import re

from cgd_ray.tutor.arithmetic import CannotSolve, Step

_ANIMALS = {
    0: "snake, sea slug, jellyfish, flatworm, leech",
    2: "chicken, bird, human, duck",
    4: "dog, cat, cow, horse, lion, elephant, giraffe, tiger, deer, sheep",
    5: "starfish",  # arms, which the family counts as legs
    6: "insect, ant, butterfly, beetle, bee, wasp, grasshopper, cricket, cockroach, "
    "praying mantis, firefly",
    8: "spider, scorpion",
    10: "crab, lobster, shrimp",
    14: "woodlouse",
}
LEGS = {name: legs for legs, names in _ANIMALS.items() for name in names.split(", ")}
_QUESTION = re.compile(
    r"\bhow many legs\b[^?]{0,200}?\bif you have ([^?]{1,2000})\?", re.IGNORECASE
)
_KIND = re.compile(r"([0-9]{1,6}) ([a-z]+(?: [a-z]+)?)")
_MOST_KINDS = 64


def asks_for_legs(problem: str) -> bool:
    """Return whether a problem is of this family."""
    return bool(_QUESTION.search(problem))


def solve_legs(problem: str) -> tuple[Step, ...]:
    """Return the legs of each kind, and then the running sums.

    Args:
        problem: a text as "How many legs are there in total if you have 3 cats, 1 snake?".

    Raises:
        CannotSolve: an animal is not known, or the list cannot be read.
    """
    question = _QUESTION.search(problem)
    if question is None:
        raise CannotSolve("the problem does not ask for the legs of a list of animals")
    kinds = [_kind(part.strip()) for part in question.group(1).strip().split(",")]
    if len(kinds) > _MOST_KINDS:
        raise CannotSolve(f"the problem has more than {_MOST_KINDS} kinds of animals")
    steps = list(kinds)
    total = kinds[0].result
    for kind in kinds[1:]:
        steps.append(Step(total, "+", kind.result, total + kind.result))
        total += kind.result
    return tuple(steps)


def _kind(part: str) -> Step:
    found = _KIND.fullmatch(part)
    if found is None:
        raise CannotSolve(f"the list of animals has {part[:40]!r} in it, not a number and a name")
    number, name = int(found.group(1)), found.group(2)
    animal = name if name in LEGS else name.removesuffix("s")
    if animal not in LEGS:
        raise CannotSolve(f"the number of legs of {animal!r} is not known")
    legs = LEGS[animal]
    each = "" if number == 1 else " each"
    words = f"{number} {name}, {legs} legs{each}"
    return Step(number, "*", legs, number * legs, words)
