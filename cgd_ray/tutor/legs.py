"""How many legs some animals have together, solved exactly, one step at a time.

The wording and the legs are those of reasoning-gym's `leg_counting`, whose answers are the
references: "... how many legs are there in total if you have 5 woodlouses, 2 leechs?"
"""

import re

from cgd_ray.tutor.arithmetic import MAX_DIGITS, CannotSolve, Step

MAX_KINDS = 64

_NAMES_BY_LEGS = {
    0: "flatworm, jellyfish, leech, sea slug, snake",
    2: "bird, chicken, duck, human",
    4: "cat, cow, deer, dog, elephant, giraffe, horse, lion, sheep, tiger",
    5: "starfish",
    6: "ant, bee, beetle, butterfly, cockroach, cricket, firefly, grasshopper, insect, "
    "praying mantis, wasp",
    8: "scorpion, spider",
    10: "crab, lobster, shrimp",
    14: "woodlouse",
}
LEGS = {name: legs for legs, names in _NAMES_BY_LEGS.items() for name in names.split(", ")}

# The list comes after it, up to the question mark. Bounded: it must not take long on hostile text.
_QUESTION = re.compile(r"\bhow many legs\b[^?.]{0,200}?\bhave\s", re.IGNORECASE)
_SEPARATOR = re.compile(r",\s*(?:and\s)?|\band\s")
_KIND = re.compile(r"([0-9]+)\s+([^\W\d_]\D*)")


def asks_for_legs(problem: str) -> bool:
    """Return whether the problem asks for the legs of what somebody has."""
    return _QUESTION.search(problem) is not None


def solve_legs(problem: str) -> tuple[Step, ...]:
    """Return one multiplication a kind of animal, in the problem's order, then the running sums.

    Args:
        problem: a text such as "How many legs are there in total if you have 3 cats, 1 ant?".

    Raises:
        CannotSolve: the problem asks for no legs, a part of its list is no number and animal, the
            legs of an animal are not known, or the list or a number in it is too long.
    """
    question = _QUESTION.search(problem)
    if question is None:
        raise CannotSolve("the problem does not ask how many legs the animals of a list have")
    parts = _SEPARATOR.split(problem[question.end() :].partition("?")[0].strip())
    if len(parts) > MAX_KINDS:
        raise CannotSolve(f"the problem has more than {MAX_KINDS} kinds of animals")
    products = [_product(part.strip()) for part in parts]
    steps = list(products)
    total = products[0].result
    for product in products[1:]:
        steps.append(Step(total, "+", product.result, total + product.result))
        total = steps[-1].result
    return tuple(steps)


def _product(part: str) -> Step:
    match = _KIND.fullmatch(part)
    if match is None:
        raise CannotSolve(f"the list of animals has {part[:40]!r} where a number of one is due")
    digits, name = match.group(1), " ".join(match.group(2).split())
    if len(digits) > MAX_DIGITS:
        raise CannotSolve(f"the problem has a number of more than {MAX_DIGITS} digits")
    count, legs = int(digits), _legs_of(name)
    words = f"{count} {name}, {legs} legs" + ("" if count == 1 else " each")
    return Step(count, "*", legs, count * legs, words)


def _legs_of(name: str) -> int:
    plural = name.casefold()
    # The data set adds an s to anything (leechs, butterflys); people write leeches, butterflies.
    for ending, singular in (("", ""), ("s", ""), ("es", ""), ("ies", "y")):
        legs = LEGS.get(plural.removesuffix(ending) + singular)
        if plural.endswith(ending) and legs is not None:
            return legs
    raise CannotSolve(f"the legs of {name[:40]!r} are not known")
