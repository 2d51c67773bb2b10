"""Which turn of the teacher's chat a request is, and what the tutor says to it.

The messages are all that the tutor goes by. Problem and draft stand between tags in the first
user turn (`cgd_ray.prompts.messages.quoted`), where untrusted text cannot close them.
"""

import re
from collections.abc import Sequence

from cgd_ray.tutor.arithmetic import CannotSolve, Step, solve
from cgd_ray.tutor.feedback import Reveal, write_critique, write_refinement
from cgd_ray.tutor.legs import asks_for_legs, solve_legs
from cgd_ray.tutor.wire import ChatMessage, Reply

_AGAIN = re.compile(r"\bcritique again\b", re.IGNORECASE)


def answer_chat(messages: Sequence[ChatMessage], reveal: Reveal) -> Reply:
    """Return the critique, the refinement, both or, with its reason, a refusal.

    A chat with one user turn asks for the critique, or for both if what it says after the draft
    names the tag of the refinement. A chat whose last turn is a user's after an
    assistant's, with no problem of its own, asks for the refinement, or for the critique again if
    it says so: then nothing is revealed.
    """
    users = [i for i, message in enumerate(messages) if message.role == "user"]
    assistants = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if not users or users[-1] != len(messages) - 1:
        return _refusal("the last message is not a user's")
    first, last = users[0], users[-1]
    problem = _between(messages[first].content, "problem")
    if problem is None:
        return _refusal("the first user message has no problem between <problem> and </problem>")
    draft = _between(messages[first].content, "answer")
    if draft is None:
        return _refusal("the first user message has no draft between <answer> and </answer>")
    second_turn = any(first < i < last for i in assistants)
    if first != last and (not second_turn or "<problem>" in messages[last].content):
        return _refusal("the chat is neither a critique's nor a refinement's")
    try:
        steps = solve_problem(problem)
    except CannotSolve as error:
        return _refusal(str(error))
    if second_turn and _AGAIN.search(messages[last].content):
        return Reply("critique", write_critique(steps, draft, "none"))
    if second_turn:
        return Reply("refinement", write_refinement(steps), num_cached_messages=assistants[0])
    comment = write_critique(steps, draft, reveal)
    if "<refinement>" in messages[first].content.partition("</answer>")[2]:
        corrected = write_refinement(steps)
        parts = ("critique", comment), ("refinement", corrected)
        return Reply("both", "\n".join(f"<{tag}>\n{text}\n</{tag}>" for tag, text in parts))
    return Reply("critique", comment)


def solve_problem(problem: str) -> tuple[Step, ...]:
    """Return the steps of a problem of either kind: the legs of animals, or one expression.

    Raises:
        CannotSolve: it is neither, or the tutor cannot solve it exactly.
    """
    return solve_legs(problem) if asks_for_legs(problem) else solve(problem)


def _between(text: str, tag: str) -> str | None:
    _, opened, rest = text.partition(f"<{tag}>")
    inside, closed, _ = rest.partition(f"</{tag}>")
    return inside if opened and closed else None


def _refusal(reason: str) -> Reply:
    return Reply("refusal", f"The tutor cannot help: {reason}.")
