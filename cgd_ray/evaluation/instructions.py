"""IFEval: whether a response follows instructions that a program can check.

The checks are those of the package `if-verifiable`, a copy of the published ones; its sentence
tokenizer is replaced by one that needs no download.
"""

import json
from functools import cache
from types import SimpleNamespace
from typing import Any

from cgd_ray.errors import UserError
from cgd_ray.evaluation.grading import Grade


def grade_instructions(response: str, checks: str) -> Grade:
    """Return whether a response follows all of its instructions (prompt level, strict).

    Args:
        response: whole response.
        checks: JSON with `prompt`, `instruction_id_list` and `kwargs`, one object each.

    Returns:
        The verdict; its reason counts the instructions followed and names those that were not.

    Raises:
        UserError: the package is not installed.
    """
    evaluate, registry = _checkers()
    wanted = json.loads(checks)
    kwargs = [_given(k) for k in wanted["kwargs"]]
    results, scores = evaluate(
        response, wanted["instruction_id_list"], kwargs, wanted["prompt"], registry
    )
    broken = [r.instruction_id for r in results if not r.strict_pass]
    total = len(wanted["instruction_id_list"])
    if not results:
        return Grade(False, None, f"0 of {total} instructions followed: the response is empty")
    loose = ", all if read loosely" if broken and scores.binary_loose else ""
    named = f" (not {', '.join(broken)}{loose})" if broken else ""
    followed = f"{len(results) - len(broken)} of {total} instructions followed{named}"
    return Grade(len(results) == total and not broken, None, followed)


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that an instruction has: parquet fills the others with nulls."""
    return {name: value for name, value in kwargs.items() if value is not None}


@cache
def _checkers() -> tuple[Any, dict[str, Any]]:
    # Optional and slow to import, so neither asked for nor loaded by other tasks.
    try:
        import langdetect
        import nltk
        import punkt
        from if_verifiable.common import evaluate_instructions
        from if_verifiable.ifeval import INSTRUCTION_DICT, instructions_util
    except ImportError as error:
        raise UserError(
            f"task ifeval needs the package '{error.name}': pip install 'cgd_ray[ifeval]'"
        ) from error
    langdetect.DetectorFactory.seed = 0  # else the same text may be of two languages
    tokenizer = punkt.PunktSentenceTokenizer(punkt.load_model("english"))
    words = nltk.tokenize.NLTKWordTokenizer()

    def word_tokenize(text: str) -> list[str]:
        return [word for part in tokenizer.tokenize(text) for word in words.tokenize(part)]

    instructions_util._get_sentence_tokenizer = lambda: tokenizer
    instructions_util.nltk = SimpleNamespace(tokenize=nltk.tokenize, word_tokenize=word_tokenize)
    return evaluate_instructions, dict(INSTRUCTION_DICT)
