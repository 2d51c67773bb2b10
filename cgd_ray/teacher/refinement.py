"""Critique -> refinement: the second turn of the same chat.

Paper, section 3: y^ ~ T(. | x, y', c).

The first turn is sent again word for word, so the teacher's prefix cache or the provider's prompt
cache serves it.
"""

from cgd_ray.prompts.messages import Message, neutralise
from cgd_ray.records import Critique, Draft, Failure, Prompt, Refinement
from cgd_ray.teacher.completion import Completion, rejected_completion
from cgd_ray.teacher.critique import build_critique_messages

TEMPLATE = "refinement/v1"

REQUEST = (
    "Now write the corrected answer to the problem, following your critique. Write it as a "
    "complete answer for someone who has seen neither the student's answer nor your critique, "
    "and mention neither. Reason step by step and put the final answer in \\boxed{}."
)


def build_refinement_messages(prompt: Prompt, draft: Draft, critique: Critique) -> list[Message]:
    """Return the critique's chat with the critique in it and the request for a refinement."""
    return [
        *build_critique_messages(prompt, draft),
        {"role": "assistant", "content": neutralise(critique.text)},
        {"role": "user", "content": REQUEST},
    ]


def parse_refinement(critique: Critique, answer: Completion) -> Refinement | Failure:
    """Return the refinement, or the reason why the teacher's answer is not one."""
    failure = rejected_completion(critique.draft_id, "refinements", answer)
    if failure is not None:
        return failure
    return Refinement(
        draft_id=critique.draft_id,
        text=answer.text.strip(),
        model=answer.model,
        template=TEMPLATE,
        num_input_tokens=answer.num_input_tokens,
        num_cached_tokens=answer.num_cached_tokens,
        num_output_tokens=answer.num_output_tokens,
    )
