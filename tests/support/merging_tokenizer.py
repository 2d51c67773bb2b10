"""A tiny real tokenizer whose merges reach across turns, with whatever chat template is asked for.

Unlike most students' templates, its markup is plain text: `user:` before a turn, `;` after it. Its
merges join that markup to digits on either side, so encoding a whole chat at once gives tokens that
belong to context and target at the same time.
"""

from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

END = "<|end|>"  # ends an answer: the only special token
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}"
    f"{{{{ '{END}' if m['role'] == 'assistant' else ';' }}}}{{% endfor %}}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 +=<|>_:;"
_MERGES = [(":", "5"), ("5", ";"), ("a", "b")]


def merging_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Return the tokenizer: one token a character, but for the merges and `END`."""
    words = [*_LETTERS, *("".join(merge) for merge in _MERGES)]
    vocab = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=_MERGES))
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    fast.chat_template = template
    return fast
