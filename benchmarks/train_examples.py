"""Training examples as a CGD run makes them, without engine and teacher: made by arithmetic.

A problem is a chain sum, the draft works it out line by line and slips once, critique and
refinement are the tutor's own words for it. About a third of the tokens are targets.
"""

import random

import reasoning_gym

from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.examples.objectives import Chain, build_example
from cgd_ray.records import Critique, Draft, Example, Prompt, Refinement
from cgd_ray.tutor.arithmetic import Step, solve
from cgd_ray.tutor.feedback import write_critique, write_refinement

_TERMS = (5, 12)
_DIGITS = (1, 3)


def cgd_examples(tokenizer: ChatTokenizer, number: int, max_tokens: int) -> list[Example]:
    """Return examples of the `cgd` objective, the same ones at every call.

    Args:
        tokenizer: the student's.
        number: how many.
        max_tokens: the longest; none comes near it.
    """
    problems = reasoning_gym.create_dataset(
        "chain_sum",
        size=number,
        seed=7,
        min_terms=_TERMS[0],
        max_terms=_TERMS[1],
        min_digits=_DIGITS[0],
        max_digits=_DIGITS[1],
    )
    draw = random.Random(7)
    made = [
        build_example("cgd", _chain(str(i), row["question"], draw), tokenizer, max_tokens)
        for i, row in enumerate(problems)
    ]
    examples = [example for example in made if isinstance(example, Example)]
    if len(examples) != number:
        raise ValueError(f"{number - len(examples)} of {number} examples are too long")
    return examples


def _chain(name: str, problem: str, draw: random.Random) -> Chain:
    steps = solve(problem)
    draft = _slip(steps, draw)
    critique, refinement = write_critique(steps, draft, "none"), write_refinement(steps)
    return Chain(
        Prompt(name, problem, None, None, "chain_sum", "train"),
        Draft(f"{name}/0", name, draft, "stop", 0, 0),
        Critique(f"{name}/0", critique, "tutor", "bench", 0, 0, 0),
        Refinement(f"{name}/0", refinement, "tutor", "bench", 0, 0, 0),
    )


def _slip(steps: tuple[Step, ...], draw: random.Random) -> str:
    """Return a draft whose work goes wrong at one step and goes on from there."""
    wrong, off, lines = draw.randrange(len(steps)), 0, []
    for index, step in enumerate(steps):
        left = step.left + off
        off += draw.choice((-10, -1, 1, 10)) if index == wrong else 0
        lines.append(f"{left} {step.operator} {step.right} = {step.result + off}")
    return "\n".join([*lines, f"So the final answer is {steps[-1].result + off}."])
