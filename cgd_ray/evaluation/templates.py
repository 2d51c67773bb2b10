"""Problem -> what the model is asked. A change of words is a new version, stored with each result.

The model under test sees one user turn: no critique, no worked examples.
"""

from cgd_ray.prompts.messages import Message

_SLOT = "{problem}"
TEMPLATES: dict[str, str] = {
    "plain/v1": _SLOT,
    "boxed/v1": _SLOT + "\n\nReason step by step and put the final answer in \\boxed{}.",
    "letter/v1": _SLOT
    + "\n\nReason step by step and put the letter of the right option in \\boxed{}.",
    "option_number/v1": _SLOT
    + "\n\nReason step by step and put the number of the right option in \\boxed{}.",
    "answer/v1": _SLOT
    + "\n\nReason step by step and end with a line of the form: The answer is ANSWER. Give the "
    "letter of an option in brackets, such as (A), where there are lettered options.",
    "code/v1": "Complete this Python function. Answer with the whole function and the imports it "
    "needs, in one ```python block.\n\n```python\n" + _SLOT + "```",
}


def build_problem_messages(template: str, question: str) -> list[Message]:
    """Return the one-turn chat that asks a problem.

    Args:
        template: a key of `TEMPLATES`.
        question: the problem; braces in it are text.
    """
    before, _, after = TEMPLATES[template].partition(_SLOT)
    return [{"role": "user", "content": before + question + after}]
