"""Where a draft first goes wrong, and which steps may be named to its writer."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from cgd_ray.tutor.arithmetic import Step
from cgd_ray.tutor.reading import DraftClaims

# result: a wrong sum; copied: another operation in its place; skipped: the work stops before it;
# final: each step is right and the final answer is not that of the last one.
Fault = Literal["result", "copied", "skipped", "final"]
_Operation = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class WrongStep:
    """Where a draft first goes wrong, counting steps from 0."""

    index: int
    fault: Fault


def is_in_words(steps: tuple[Step, ...]) -> bool:
    """Return whether the problem is one in words, whose products come first and stand alone."""
    return bool(steps[0].words)


def first_wrong_step(steps: tuple[Step, ...], claims: DraftClaims) -> WrongStep | None:
    """Return the first step that the draft has wrong; None if nothing in it is wrong."""
    stated = _stated(steps, claims)
    last_stated = max((i for i, result in enumerate(stated) if result is not None), default=-1)
    for index, (step, result) in enumerate(zip(steps, stated, strict=True)):
        if result is not None and result != step.result:
            return WrongStep(index, "result")
    if claims.final == steps[-1].result:
        return None
    if last_stated == len(steps) - 1:
        return WrongStep(last_stated, "final")
    if is_in_words(steps):
        return _first_not_done(steps, claims, last_stated)
    ours = {_canonical(step) for step in steps}
    strays = claims.equations and _canonical(claims.equations[-1]) not in ours
    return WrongStep(last_stated + 1, "copied" if strays else "skipped")


def is_chain(steps: tuple[Step, ...], index: int) -> bool:
    """Return whether each step after `index` goes on from the one before with a given number."""
    if is_in_words(steps):
        return index == len(steps) - 1  # what is added is never given: it is a product
    given = _given_numbers(steps)
    later = zip(steps[index:], steps[index + 1 :], strict=False)
    return all(b.left == a.result and given[b.right] > 0 for a, b in later)


def may_name(steps: tuple[Step, ...], claims: DraftClaims, index: int) -> bool:
    """Return whether a step's operands are the problem's numbers or ones the draft has right."""
    stated = _stated(steps, claims)
    if stated[index] is not None:
        return True
    known = {s.result for s, result in zip(steps, stated, strict=True) if result == s.result}
    if is_in_words(steps):
        # A number of the problem may happen to be a product that the draft does not have.
        known |= _addends(claims).keys() | ({0} if steps[-1].result else set())
        has_work = bool(claims.equations or claims.long_sums)
        return has_work if steps[index].words else _operands(steps[index]) <= known
    known |= set(_given_numbers(steps))
    return index > 0 and _operands(steps[index]) <= known


def _first_not_done(steps: tuple[Step, ...], claims: DraftClaims, last_stated: int) -> WrongStep:
    """Return the first product without a trace in the draft, else the sum where it stops."""
    ours = {_canonical(step) for step in steps}
    strays = [e for e in claims.equations if _canonical(e) not in ours]
    stray_counts = {number for e in strays if e.operator == "*" for number in _operands(e)}
    products = [step for step in steps if step.words]
    stated = _stated(steps, claims)
    addends = _addends(claims)
    adds = bool(addends)
    addends.subtract(p.result for p, r in zip(products, stated, strict=False) if r is not None)
    for index, product in enumerate(products):
        if stated[index] is not None:
            continue
        strayed = product.left in stray_counts
        # "1 cat has 4 legs, 70 + 4 = 74" has that product; who adds need not add 0.
        if addends[product.result] > 0:
            addends[product.result] -= 1
        elif strayed or product.result or not adds:
            return WrongStep(index, "copied" if strayed else "skipped")
    if any(s.result == steps[-1].result for s in claims.long_sums):
        return WrongStep(len(steps) - 1, "final")
    index = max(last_stated + 1, len(products))
    # Adding 0 is not what went wrong, unless nothing else is left to do.
    while index < len(steps) and 0 in _operands(steps[index]):
        index += 1
    if index == len(steps):
        return WrongStep(index - 1, "final" if last_stated >= len(products) else "skipped")
    strayed = any(e.operator == "+" and steps[index].left in _operands(e) for e in strays)
    return WrongStep(index, "copied" if strayed else "skipped")


def _addends(claims: DraftClaims) -> Counter[int]:
    sums = [s.addends for s in claims.long_sums]
    sums += [(e.left, e.right) for e in claims.equations if e.operator == "+"]
    return Counter(number for addends in sums for number in addends)


def _operands(step: Step) -> set[int]:
    return {step.left, step.right}


def _given_numbers(steps: tuple[Step, ...]) -> Counter[int]:
    # Each result but the last is used exactly once by a later step; what is left is the problem's.
    used = Counter(number for step in steps for number in (step.left, step.right))
    return used - Counter(step.result for step in steps[:-1])


def _stated(steps: tuple[Step, ...], claims: DraftClaims) -> list[int | None]:
    """Return each step's result as the draft states it (its last word), None where it does not."""
    results: dict[_Operation, list[int | None]] = {}
    for equation in claims.equations:
        results.setdefault(_canonical(equation), []).append(equation.result)
    stated: list[int | None] = []
    for index, step in enumerate(steps):
        found = results.get(_canonical(step), [None])
        # 3 cats, 3 dogs: two products that look the same, and two statements are one of each.
        alike = [i for i, s in enumerate(steps) if s.words and _canonical(s) == _canonical(step)]
        its_own = index in alike and len(found) == len(alike)
        stated.append(found[alike.index(index)] if its_own else found[-1])
    return stated


def _canonical(step: Step) -> _Operation:
    """Return the operation so that 5 - -3, 5 + 3 and 3 + 5 are the same."""
    if step.operator in ("+", "-"):
        right = step.right if step.operator == "+" else -step.right
        return "+", tuple(sorted((step.left, right)))
    if step.operator == "*":
        return "*", tuple(sorted((step.left, step.right)))
    return "/", (step.left, step.right)
