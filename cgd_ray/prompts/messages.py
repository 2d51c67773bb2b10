"""Chat messages, and how untrusted text is put into them.

Problems, drafts and critiques come from data sets and models. They go into user and assistant
turns only, between named tags, and can neither close their tag nor form a special token.
"""

import re
from typing import Literal, TypedDict


class Message(TypedDict):
    """One turn of a chat, in the shape that OpenAI-compatible servers take."""

    role: Literal["system", "user", "assistant"]
    content: str


# Markup of some chat template: <|im_end|>, the same with fullwidth bars (U+FF5C), [INST], </s>,
# <end_of_turn>.
_SPECIAL_TOKEN = re.compile(
    r"<[|\uff5c][^<>\n]{0,64}?[|\uff5c]>|\[/?INST\]|</?s>|<</?SYS>>|<[be]os>|<(start|end)_of_turn>"
)
_TAG = re.compile(r"</?(problem|answer)>", re.IGNORECASE)


def neutralise(text: str) -> str:
    """Return the text with chat markup spelt so that no template or parser reads it as markup."""
    text = _SPECIAL_TOKEN.sub(lambda m: m.group()[0] + "\u200b" + m.group()[1:], text)
    return _TAG.sub(lambda m: "<\u200b" + m.group()[1:], text)


def quoted(tag: str, text: str) -> str:
    """Return untrusted text between lines of `<tag>` and `</tag>` that it cannot close."""
    return f"<{tag}>\n{neutralise(text).strip()}\n</{tag}>"
