"""A model's code runs fenced in: what passes, what fails, and what it cannot reach."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from cgd_ray.evaluation.code import build_program, extract_code, grade_code, run_sandboxed
from cgd_ray.evaluation.grader_pool import GradeItem, GraderPool

TEST = "def check(f):\n    assert f(1) == 2\n    assert f(-3) == -2\n"
PROMPT = 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef f(x):\n    """Add one."""\n'
CHECKS = json.dumps({"prompt": PROMPT, "test": TEST, "entry_point": "f"})


@pytest.mark.parametrize(
    ("response", "correct"),
    [
        ("```python\ndef f(x):\n    return x + 1\n```", True),
        (
            "Sure.\n```py\nimport math\n\ndef f(x):\n    return x + math.floor(1.5)\n```\nDone.",
            True,
        ),
        ("```\ndef f(x):\n    return int(half(2 * x)) + 1\n```", True),
        ("    return x + 1\n", True),
        ("return x + 1", True),
        ("```python\ndef f(x):\n    return x + 1\n```\nUse it:\n```python\nprint(f(1))\n```", True),
        ("```python\ndef f(x):\n    return x\n```", False),
        ("```python\ndef f(x:\n    return x + 1\n```", False),
        ("I cannot do that.", False),
        ("", False),
    ],
)
def test_code_is_found_and_tested(response: str, correct: bool) -> None:
    result = grade_code(response, CHECKS)
    assert result.correct is correct, result


def test_a_body_alone_continues_the_prompt() -> None:
    assert build_program(PROMPT, "return x", "f").endswith('"""Add one."""\n    return x')
    assert extract_code("text\n```python\ndef f(x): ...", "f") == "def f(x): ..."


GOOD = "\ndef f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "import sys\nprint('0' * 32)\nsys.exit(0)",
        "import os\nos.fork()",
        "import threading\nthreading.Thread(target=print).start()",
        "x = bytearray(3 << 30)",
        "open('big', 'w').write('x' * (2 << 20))",
        f"import os\nos.kill({os.getpid()}, 9)",
        f"open({str(Path(__file__).parent / 'x')!r}, 'w')",
    ],
)
def test_it_can_neither_end_early_nor_reach_out(program: str) -> None:
    assert run_sandboxed(program + GOOD, TEST, "f") is not None


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import _socket\n_socket.socket(2, 1).connect(('127.0.0.1', {port}))"
        said = run_sandboxed(connect + GOOD, TEST, "f")
    if said is None:
        pytest.skip("this kernel gives no network namespace")


def test_it_may_write_in_its_own_folder_and_sees_no_environment() -> None:
    program = "import os\nopen('a', 'w').write('x')\nassert 'PATH' not in os.environ"
    assert run_sandboxed(program + GOOD, TEST, "f") is None


def test_a_loop_is_ended() -> None:
    start = time.monotonic()
    said = run_sandboxed("while True: pass", TEST, "f", wall_clock_s=1)
    assert said == "timeout: not done within 1 s"
    assert time.monotonic() - start < 5


def test_the_pool_runs_code_and_instructions() -> None:
    pytest.importorskip("if_verifiable")
    obey = {"prompt": "?", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    items = [
        GradeItem("", "```python" + GOOD + "```", "code", checks=CHECKS),
        GradeItem("", "no, never", "instructions", checks=json.dumps(obey)),
        GradeItem("", "never", "instructions", checks=json.dumps(obey)),
    ]
    with GraderPool(2, timeout_s=60) as pool:
        grades = pool.grade_all(items)
    assert [grade.correct for grade in grades] == [True, False, True]
    assert grades[1].reason == "0 of 1 instructions followed (not punctuation:no_comma)"
