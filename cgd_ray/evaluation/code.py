"""A model's code run against the tests of its problem, in a process that may do next to nothing.

No network, no other processes, no rights (user `nobody` where we are root), an empty folder, and
limits on time, memory and files. It is a fence against accidents, not a virtual machine: it is
used only with `evaluate.allow_code_execution`.
"""

import json
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from cgd_ray.evaluation.answers import final_text
from cgd_ray.evaluation.grading import MAX_ANSWER_CHARS, Grade

WALL_CLOCK_S = 8
_CPU_S = 5
_MEMORY_BYTES = 1 << 30
_CHILD = Path(__file__).with_name("sandbox_child.py")
_BLOCK = re.compile(r"```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.I)


def extract_code(response: str, entry_point: str) -> str:
    """Return the code of a response.

    Args:
        response: whole response.
        entry_point: the function that is asked for.

    Returns:
        The last fenced block that defines it, else the last block, else the text as it is.
    """
    text = final_text(response)
    blocks = [match[1] for match in _BLOCK.finditer(text)]
    defining = [block for block in blocks if _defines(block, entry_point)]
    return (defining or blocks or [text])[-1]


def build_program(prompt: str, code: str, entry_point: str) -> str:
    """Return what is run: the prompt, whose helpers tests may use, and the code after it.

    Args:
        prompt: of the problem: ends within the function that is asked for, after its docstring.
        code: the whole function, or its body alone.
        entry_point: the function's name.
    """
    if _defines(code, entry_point):
        return f"{prompt}\n    pass\n\n{code}"
    body = code if code[:1].isspace() or not code.strip() else "    " + code
    return prompt + body


def grade_code(response: str, checks: str) -> Grade:
    """Return whether a response's code passes its problem's tests.

    Args:
        response: whole response.
        checks: JSON with `prompt`, `test` and `entry_point`.
    """
    job = json.loads(checks)
    code = extract_code(response, job["entry_point"])
    program = build_program(job["prompt"], code, job["entry_point"])
    said = run_sandboxed(program, job["test"], job["entry_point"])
    return Grade(said is None, code[:MAX_ANSWER_CHARS], said or "all tests passed")


def run_sandboxed(
    program: str, test: str, entry_point: str, wall_clock_s: float = WALL_CLOCK_S
) -> str | None:
    """Run a program and its tests; return None if they pass, else one line that says why not.

    Args:
        program: defines `entry_point`.
        test: defines `check(candidate)`, which raises if a test fails.
        entry_point: the function to test.
        wall_clock_s: seconds until all of it is killed.
    """
    token = secrets.token_hex(16)
    job = {"program": program, "test": test, "entry_point": entry_point, "token": token}
    limits = {"cpu_s": _CPU_S, "memory_bytes": _MEMORY_BYTES}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # the child may be another user
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_CHILD)],
                input=json.dumps(job | limits).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={},
                timeout=wall_clock_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"timeout: not done within {wall_clock_s:g} s"
    said = done.stdout.decode("utf-8", "replace")
    if said == token:
        return None
    return " ".join(said.split()) or "the code ended or was killed before its tests were done"


def _defines(code: str, name: str) -> bool:
    return bool(re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE))
