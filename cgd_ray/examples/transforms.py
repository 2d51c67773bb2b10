"""Critiques spoilt on purpose: what is left of the method when the critique says less, or lies?

A transform is a pure function of the critique, a donor (the critique of another prompt's draft) and
a random stream that the row's id seeds. It returns None where it finds nothing to spoil.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cgd_ray.examples.objectives import Chain

Spoil = Callable[[str, str, random.Random], str | None]

_GENERIC = "Parts of this answer may be wrong. Check every step and correct what needs correcting."
_OPPOSITES = {
    "right": "wrong",
    "correct": "incorrect",
    "correctly": "incorrectly",
    "accurate": "inaccurate",
    "valid": "invalid",
}
_FLIPPED = _OPPOSITES | {after: before for before, after in _OPPOSITES.items()}
# "From left to right" and "on the right" are directions, no verdicts.
_VERDICT = re.compile(
    rf"(?<!\bto )(?<!\bthe )\b(?:not )?({'|'.join(_FLIPPED)})\b(?!-hand)", re.IGNORECASE
)
_STEP = re.compile(r"\b(step|line)(\s+)([0-9]{1,3})\b", re.IGNORECASE)
_WORDS = (
    "apple bridge candle desert engine forest garden harbour island jacket kettle ladder market "
    "needle orchard pepper quarry river saddle timber umbrella valley window yellow anchor basket "
    "copper dragon ember feather granite hammer ivory jungle kitten lantern meadow nickel ocean "
    "pillow rabbit silver thunder velvet walnut"
)


@dataclass(frozen=True, slots=True)
class Transform:
    """How a critique is spoilt, and what it must hold for that."""

    spoil: Spoil
    needs: str


def _flipped(critique: str, _donor: str, _draw: random.Random) -> str | None:
    def flip(match: re.Match[str]) -> str:
        word = match.group(1)
        if match.group().lower().startswith("not "):
            return word
        opposite = _FLIPPED[word.lower()]
        return opposite.capitalize() if word[0].isupper() else opposite

    text, number = _VERDICT.subn(flip, critique)
    return text if number else None


def _wrong_step(critique: str, _donor: str, draw: random.Random) -> str | None:
    named = [int(number) for _, _, number in _STEP.findall(critique)]
    if not named:
        return None
    # One shift for all, so that the critique stays in agreement with itself.
    shift = 1 if min(named) <= 1 else draw.choice((-1, 1))
    return _STEP.sub(lambda m: f"{m[1]}{m[2]}{int(m[3]) + shift}", critique)


def _first_half(critique: str, _donor: str, _draw: random.Random) -> str | None:
    words = critique.split()
    return " ".join(words[: (len(words) + 1) // 2]) if len(words) > 1 else None


def _random_words(critique: str, _donor: str, draw: random.Random) -> str | None:
    words = _WORDS.split()
    return " ".join(draw.choice(words) for _ in critique.split())


TRANSFORMS: dict[str, Transform] = {
    "shuffled": Transform(lambda _critique, donor, _draw: donor, "a second prompt"),
    "generic": Transform(lambda _critique, _donor, _draw: _GENERIC, "nothing"),
    "truncated": Transform(_first_half, "two words"),
    "verdict_flipped": Transform(_flipped, "a verdict such as right, wrong or incorrect"),
    "wrong_step": Transform(_wrong_step, "a step that is named by number"),
    "random_text": Transform(_random_words, "nothing"),
}


def donors(chains: Sequence[Chain], seed: int) -> dict[str, str]:
    """Return, by draft id, the critique of another prompt's draft: each is given away once.

    A prompt that has more than half of all drafts cannot be served whole; those drafts are left
    out.
    """

    def rank(chain: Chain) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}/donor/{chain.prompt.id}".encode()).digest(), chain.draft.id

    ranked = sorted(chains, key=rank)
    # Drafts of a prompt stand together: a turn by the longest such stretch leaves each of them.
    turn = max(Counter(c.prompt.id for c in chains).values(), default=0)
    turned = ranked[turn:] + ranked[:turn]
    pairs = zip(ranked, turned, strict=True)
    return {a.draft.id: b.critique.text for a, b in pairs if a.prompt.id != b.prompt.id}


def spoilt(chain: Chain, transform: str, donor: str | None, seed: int) -> Chain | None:
    """Return the chain with its critique spoilt; None if the transform finds nothing to spoil.

    Args:
        chain: the chain as it was taught.
        transform: a key of `TRANSFORMS`.
        donor: the critique of another prompt's draft; None: there is none.
        seed: of the run.
    """
    if transform == "shuffled" and donor is None:
        return None
    draw = random.Random(f"{seed}/{transform}/{chain.draft.id}")
    text = TRANSFORMS[transform].spoil(chain.critique.text, donor or "", draw)
    return replace(chain, critique=replace(chain.critique, text=text)) if text else None
