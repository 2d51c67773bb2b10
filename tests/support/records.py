"""Records with everything filled in, so that a test names only what it is about."""

from cgd_ray.examples.objectives import Chain
from cgd_ray.records import Critique, Draft, Failure, Prompt, Refinement
from cgd_ray.teacher.completion import Completion
from cgd_ray.teacher.rows import TeacherRow


def prompt(text: str = "What is 2 + 3?", **values: object) -> Prompt:
    defaults = {"id": "p", "reference": "5", "solution": None, "source": "test", "split": "train"}
    return Prompt(text=text, **{**defaults, **values})


def draft(text: str = "2 + 3 = 6", **values: object) -> Draft:
    defaults = {"id": "p/0", "prompt_id": "p", "finish_reason": "stop", "num_tokens": 7, "seed": 1}
    return Draft(text=text, **{**defaults, **values})


_TAUGHT = {
    "draft_id": "p/0",
    "model": "teacher",
    "template": "t/v1",
    "num_input_tokens": 10,
    "num_cached_tokens": 0,
    "num_output_tokens": 5,
}


def critique(text: str = "The sum is wrong.", **values: object) -> Critique:
    return Critique(text=text, **{**_TAUGHT, **values})


def refinement(text: str = "2 + 3 = 5, so \\boxed{5}.", **values: object) -> Refinement:
    return Refinement(text=text, **{**_TAUGHT, **values})


def failure(row_id: str, reason: str = "overloaded", *, permanent: bool = False) -> Failure:
    return Failure(row_id, "stage", reason, f"{reason} once", permanent)


def completion(text: str = "an answer", **values: object) -> Completion:
    defaults = {
        "model": "teacher",
        "finish_reason": "stop",
        "refusal": None,
        "num_input_tokens": 10,
        "num_cached_tokens": 4,
        "num_output_tokens": 5,
    }
    return Completion(text=text, **{**defaults, **values})


def chain(
    problem: str = "What is 2 + 3?",
    answer: str = "2 + 3 = 6",
    comment: str = "The sum is wrong.",
    corrected: str = "2 + 3 = 5",
    **values: object,
) -> Chain:
    """Return a chain; `values` go to the prompt."""
    return Chain(prompt(problem, **values), draft(answer), critique(comment), refinement(corrected))


def teacher_row(problem: str) -> TeacherRow:
    """Return a row for the teacher whose ids are made of its problem."""
    return prompt(problem, id=problem), draft(id=f"{problem}/0", prompt_id=problem)
