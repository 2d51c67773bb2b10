"""Does a critique call the draft right or wrong? A rule over its words, with "it does not say".

A critique is read clause by clause; a sentence also ends where it turns ("but", "however"). A
clause says "right" or "wrong" by its first word of judgement, turned round by a negation up to
three words before it. No judgement: what is hedged or asked for ("may be wrong", "check whether it
is right"), directions ("from left to right"), "the correct ..." before a noun, and "correct" as an
order. Then, in this order:

1. the first clause that judges the answer, the result, the solution or the draft as a whole;
2. "wrong" if any clause finds fault;
3. "right" if any clause finds something right;
4. no verdict.
"""

import re
from collections.abc import Iterator
from typing import Literal

Verdict = Literal["right", "wrong"]

_CLAUSE_END = re.compile(
    r"[.!?;:](?=\s|$)|\n|,?\s+\b(?:but|however|although|though|yet|whereas|except)\b", re.IGNORECASE
)
_HEDGED = re.compile(
    r"\b(?:may|might|could|would|if|whether|check|verify|ensure|make sure|should be|unless)\b",
    re.IGNORECASE,
)
_NO_JUDGEMENT = re.compile(
    r"\bto (?:the )?right\b|\b(?:on|at|from|of) the right\b"
    r"|\bright(?:-| )hand\b|\bright (?:side|to)\b"
    # What is named, not judged: "the correct answer is 12". "Not the right one" is a judgement.
    r"|(?<!\bnot )(?<!n't )\b(?:the|an?|one) (?:right|correct|accurate|valid) (?=[a-z])"
    r"|^\W*(?:(?:please|then|now|and|so) )*correct (?:the|this|that|it|them|your|what|each|any)\b"
    r"|\b(?:to|must|should|then|and|please) correct\b",
    re.IGNORECASE,
)
_WRONG = (
    r"wrong(?:ly)?|incorrect(?:ly)?|inaccurate(?:ly)?|invalid|mistake[ns]?|mistakenly|errors?"
    r"|erroneous(?:ly)?|flaw(?:s|ed)?|fail(?:s|ed)?|missing|miss(?:es|ed)|omits?|omitted"
    r"|miscalculat\w+|misread\w*|not finished|unfinished|incomplete"
)
_RIGHT = r"right|correct(?:ly)?|accurate(?:ly)?|valid|flawless|perfect|well done"
# "The result is not 12" and "step 1 is not the problem's" find fault without a word for it.
_IS_NOT = r"(?:is|are|was|were)(?: not|n't) (?:the|an?|what|that of|-?\d+)"
_JUDGEMENT = re.compile(rf"\b(?:({_IS_NOT})|({_WRONG})|({_RIGHT}))\b", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?:\b(?:not|no|never|without|nor|neither|hardly|free of)|n't)(?:\s+\w+){0,2}\s+$",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    r"\b(?:answer|result|solution|conclusion|response|draft|attempt)s?\b", re.IGNORECASE
)
# "The first part of the answer", "the error in the solution": not the whole of it.
_PART = re.compile(
    r"\b(?:of|in|for|to|into|toward)\s+(?:(?:the|this|that|your|its|an?|student's|final|whole)\s+)*$",
    re.IGNORECASE,
)
_SHORT = 4  # words: "Correct answer!" judges a subject that stands behind the word
_Judged = tuple[Verdict, bool]  # and whether it is about the whole


def read_verdict(critique: str) -> Verdict | None:
    """Return what a critique says of the draft; None if it does not say."""
    judged = list(_judgements(critique))
    whole: Verdict | None = next((verdict for verdict, of_whole in judged if of_whole), None)
    if whole or not judged:
        return whole
    found: set[Verdict] = {verdict for verdict, _ in judged}
    return "wrong" if "wrong" in found else "right"


def _judgements(critique: str) -> Iterator[_Judged]:
    for clause in _CLAUSE_END.split(critique):
        judged = _judgement(clause)
        if judged is not None:
            yield judged


def _judgement(clause: str) -> _Judged | None:
    if _HEDGED.search(clause):
        return None
    clause = _NO_JUDGEMENT.sub(" ", clause)
    found = _JUDGEMENT.search(clause)
    if found is None:
        return None
    negated = found[1] is None and _NEGATED.search(clause[: found.start()])
    says_right = bool(found[3]) != bool(negated)
    of_manner = found[0].lower().endswith("ly")  # "the answer correctly adds": a step of it
    verdict: Verdict = "right" if says_right else "wrong"
    return verdict, not of_manner and _is_whole(clause, found.start())


def _is_whole(clause: str, judged_at: int) -> bool:
    """Return whether the subject of a judgement is the whole answer."""
    place = len(clause) if len(clause.split()) <= _SHORT else judged_at
    return any(
        not _PART.search(clause[: subject.start()]) for subject in _WHOLE.finditer(clause[:place])
    )
