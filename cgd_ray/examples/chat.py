"""Chat turns -> tokens, through the student's own template, with care for every boundary.

The template's markup and the turns' texts are encoded apart: a text can never form a special
token, and no merge straddles the boundary between context and target.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from cgd_ray.errors import UserError
from cgd_ray.prompts.messages import Message


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    chat_template: Any
    eos_token_id: Any

    def encode(self, text: str, **kwargs: Any) -> list[int]:  # noqa: ANN401
        """Return token ids."""
        ...

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Return the rendered chat."""
        ...


class ChatTokenizer:
    """Encodes chats for training.

    Args:
        tokenizer: of the student, with a chat template.

    Raises:
        UserError: there is no template, or training would not match what is served.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise UserError(
                "the student's tokenizer has no chat template: use an instruction-tuned model, or "
                "put chat_template.jinja into the folder that student.model names"
            )
        self._markup: dict[tuple[str, ...], tuple[list[list[int]], list[int]]] = {}

    def encode_example(self, context: Sequence[Message], target: str) -> tuple[list[int], int]:
        """Return the tokens of context and target, and how many of them are context.

        The context ends with the generation prompt, so its tokens carry no loss; the target ends
        with the token that ends the turn, and nothing after it.
        """
        *before, last = self.encode_parts(context, target)
        ids = [token for part in before for token in part]
        return ids + last, len(ids)

    def encode_parts(self, context: Sequence[Message], target: str) -> list[list[int]]:
        """Return the same tokens by part: markup and text of each turn, markup, target.

        The text of turn i, counted from 0, is part 2 i + 1; the target is the last part.
        """
        openings, ending = self._pieces(tuple(message["role"] for message in context))
        parts: list[list[int]] = []
        for opening, message in zip(openings, context, strict=False):
            parts += [opening, self._text(message["content"])]
        return [*parts, openings[-1], self._text(target) + ending]

    def encode_prompt(self, context: Sequence[Message]) -> list[int]:
        """Return the tokens that a served model is given for a chat."""
        ids, num_context = self.encode_example(context, "")
        return ids[:num_context]

    def _text(self, text: str) -> list[int]:
        return self._tokenizer.encode(
            text.strip(), add_special_tokens=False, split_special_tokens=True
        )

    def _pieces(self, roles: tuple[str, ...]) -> tuple[list[list[int]], list[int]]:
        """Return the markup before each turn and before the target, and that which ends it."""
        if roles not in self._markup:
            self._markup[roles] = self._split_template(roles)
        return self._markup[roles]

    def _split_template(self, roles: tuple[str, ...]) -> tuple[list[list[int]], list[int]]:
        marks = [f"cgd7mark{i}end" for i in range(len(roles) + 1)]
        turns = [{"role": r, "content": m} for r, m in zip(roles, marks, strict=False)]
        asked = self._render(turns, generate=True)
        whole = self._render([*turns, {"role": "assistant", "content": marks[-1]}], generate=False)
        if not whole.startswith(asked):
            raise UserError(
                "the student's chat template renders an answered chat differently from the prompt "
                "that asks for the answer, so training would not match serving: choose another "
                "student.model or mend its chat_template"
            )
        pieces: list[str] = []
        rest = whole
        for mark in marks:
            piece, found, rest = rest.partition(mark)
            if not found:
                raise UserError(
                    "the student's chat template drops or reorders turns (roles "
                    f"{', '.join(roles)}): choose another student.model"
                )
            pieces.append(piece)
        openings = [self._markup_ids(piece) for piece in pieces]
        return openings, self._ending(self._markup_ids(rest))

    def _ending(self, tail: list[int]) -> list[int]:
        """Return the template's tokens after an answer, up to the one that stops generation."""
        eos = self._tokenizer.eos_token_id
        return tail[: tail.index(eos) + 1] if eos in tail else [*tail, eos]

    def _markup_ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _render(self, turns: list[dict[str, str]], *, generate: bool) -> str:
        return self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=generate
        )
