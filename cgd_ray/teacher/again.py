"""The request for another critique, where the first gives the answer away.

A turn of the same chat (`curation.leakage = "regenerate"`).
"""

from cgd_ray.prompts.messages import Message, neutralise
from cgd_ray.records import Critique, Draft, Prompt
from cgd_ray.teacher.critique import build_critique_messages

TEMPLATE = "critique_again/v1"
REQUEST = (
    "Your critique states the final answer. Write the critique again without it: say what is right "
    "and what is wrong, name the first wrong step, and leave every result for the student to find."
)


def build_again_messages(prompt: Prompt, draft: Draft, critique: Critique) -> list[Message]:
    """Return the critique's chat with the critique in it and the request for another one."""
    return [
        *build_critique_messages(prompt, draft),
        {"role": "assistant", "content": neutralise(critique.text)},
        {"role": "user", "content": REQUEST},
    ]
