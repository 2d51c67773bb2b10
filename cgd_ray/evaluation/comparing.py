"""Whether two mathematical answers are equal, as far as text and exact arithmetic can tell."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cgd_ray.evaluation.latex import Collection, compact, plain, split_collection
from cgd_ray.evaluation.quantities import equal_in_base, equal_quantities, parse_quantity
from cgd_ray.evaluation.rationals import TooLargeError

MAX_PARTS = 30  # of a list: every pair may need computer algebra

Verdict = bool | None  # None: neither text nor arithmetic can tell
Symbolic = Callable[[str, str, float], bool]  # gold, answer, relative tolerance

# Sets may be written in several ways; only computer algebra sees that they are the same.
_SET_LIKE = re.compile(
    r"[<>]|\\leq|\\geq|\\neq|\\in(?![a-z])|\\cup|\\cap|\\mathbb|\\begin|\\setminus"
)
_ASSIGNED = re.compile(
    r"(?:[A-Za-z]\w{0,2}|[A-Za-z]_\{?\w+\}?|[A-Za-z]\([a-z]\)|\\[a-z]+|\([A-Za-z\\, ]+\))\s*=\s*"
    r"|[A-Za-z]\s*\\in(?![a-z])\s*"
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]{3,}")


@dataclass(frozen=True, slots=True)
class Comparer:
    """Compares cleaned answers, part by part where they are lists, sets or tuples."""

    relative_tolerance: float = 0.0  # the data set's own, as a share of the gold value
    symbolic: Symbolic | None = None  # asked when nothing else can tell; None: it stays undecided

    def compare(self, gold: str, answer: str) -> Verdict:
        """Return whether two cleaned answers are equal.

        Args:
            gold: the reference.
            answer: what is graded.

        Returns:
            The verdict; None, only without `symbolic`, if it needs computer algebra.
        """
        gold, answer = _without_assignment(gold, answer)
        golds, answers = split_collection(gold), split_collection(answer)
        # "1,234" is a number before it is a list.
        exact = compare_exactly(gold, answer, self.relative_tolerance)
        if exact or (golds is None and answers is None and exact is not None):
            return exact
        verdict = None
        if golds and answers:
            verdict = self._collections(golds, answers)
        elif golds or answers:
            verdict = self._single_and_list(golds, answers, gold, answer)
        if verdict or (verdict is False and not _is_set_like(gold, answer)):
            return verdict
        if ("\\cup" in gold) != ("\\cup" in answer) and (golds or answers):
            return self.compare(gold.replace("\\cup", " or "), answer.replace("\\cup", " or "))
        return self._ask(gold, answer)

    def _ask(self, gold: str, answer: str) -> Verdict:
        if self.symbolic is None:
            return None
        return self.symbolic(gold, answer, self.relative_tolerance)

    def _single_and_list(
        self, golds: Collection | None, answers: Collection | None, gold: str, answer: str
    ) -> Verdict:
        """A list is a single answer only if that is all it holds: "x+1 or 1+x"."""
        if golds and len(golds.elements) == 1:
            return self.compare(golds.elements[0], answer)
        if answers and answers.brackets in ("", "{}") and len(answers.elements) <= MAX_PARTS:
            return _all_of(self.compare(gold, element) for element in answers.elements)
        return False

    def _collections(self, golds: Collection, answers: Collection) -> Verdict:
        first, second = list(golds.elements), list(answers.elements)
        if golds.brackets in ("", "{}") and answers.brackets in ("", "{}"):
            first, second = list(dict.fromkeys(first)), list(dict.fromkeys(second))
            return len(first) == len(second) <= MAX_PARTS and self._any_order(first, second)
        if not len(first) == len(second) <= MAX_PARTS or not _same_brackets(golds, answers):
            return False
        return _all_of(map(self.compare, first, second))

    def _any_order(self, golds: list[str], answers: list[str]) -> Verdict:
        left = list(answers)
        for gold in golds:
            verdicts = [self.compare(gold, answer) for answer in left]
            if True not in verdicts:
                return None if None in verdicts else False
            left.pop(verdicts.index(True))
        return True


def compare_exactly(gold: str, answer: str, relative_tolerance: float) -> Verdict:
    """Compare two cleaned single answers as text, quantities and numbers in a base.

    Args:
        gold: the reference.
        answer: what is graded.
        relative_tolerance: the data set's own, as a share of the gold value; 0 for none.

    Returns:
        The verdict; None if it needs computer algebra.
    """
    if compact(gold) == compact(answer):
        return True
    try:
        verdict = _compare_numbers(gold, answer, relative_tolerance)
    except TooLargeError:
        return False  # such a number is right only if it is written as the gold one is
    if verdict is None and (_WORDS.fullmatch(plain(gold)) or _is_label(gold)):
        return _word_key(gold) == _word_key(answer)
    return verdict


def _compare_numbers(gold: str, answer: str, relative_tolerance: float) -> Verdict:
    if (verdict := equal_in_base(gold, answer)) is not None:
        return verdict
    gold_quantity, answer_quantity = parse_quantity(gold), parse_quantity(answer)
    if gold_quantity is None or answer_quantity is None:
        return None
    return equal_quantities(gold_quantity, answer_quantity, relative_tolerance)


def _same_brackets(golds: Collection, answers: Collection) -> bool:
    """Two numbers in brackets may be an interval, so that the brackets matter."""
    kinds = {golds.brackets, answers.brackets}
    if len(kinds) == 1:
        return True
    if "{}" in kinds:
        return False
    return len(golds.elements) > 2 or kinds == {"", "()"}


def _all_of(verdicts: Iterable[Verdict]) -> Verdict:
    undecided = False
    for verdict in verdicts:
        if verdict is False:
            return False
        undecided = undecided or verdict is None
    return None if undecided else True


def _without_assignment(gold: str, answer: str) -> tuple[str, str]:
    r"""Take "x =", "x \in" and "\approx 0.33" off one side if the other has none."""
    for sign in ("=", "\\in ", "\\approx"):
        if (sign in gold) != (sign in answer):
            gold, answer = (_value(text, sign) for text in (gold, answer))
    return gold, answer


def _value(text: str, sign: str) -> str:
    if sign not in text or split_collection(text):
        return text
    if sign == "\\approx":
        return text.partition(sign)[0].strip()
    head = _ASSIGNED.match(text)
    return text[head.end() :].rpartition(sign)[2].strip() if head else text


def _is_set_like(gold: str, answer: str) -> bool:
    return bool(_SET_LIKE.search(gold) or _SET_LIKE.search(answer))


def _is_label(text: str) -> bool:
    return bool(re.fullmatch(r"\s*\\text\s*\{\s*\(?[A-Z]\)?\s*\}\s*|\([A-Z]\)", text))


def _word_key(text: str) -> str:
    return re.sub(r"^(?:the|an?)\s+", "", plain(text).lower()).strip("() .")
