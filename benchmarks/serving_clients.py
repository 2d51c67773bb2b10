"""Clients that others wrote, against our served student: do they work, and do they find a 5xx?

The openai and langchain-openai clients, vLLM's `vllm bench serve`, lm-eval's
`local-chat-completions` on 200 problems of gsm8k at temperature 0, and schemathesis on our routes.
lm-eval's verdicts are compared with ours on the same answers. `CLIENTS_PYTHON` names an interpreter
with openai, langchain-openai, lm-eval and schemathesis.

    CLIENTS_PYTHON=... python -m benchmarks.serving_clients --data ../shared/datasets
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest

from benchmarks.results import write_result
from benchmarks.serving_speed import ask_with_vllm, our_server, running
from cgd_ray.evaluation.grader_pool import GradeItem, GraderPool
from cgd_ray.processes import free_port
from cgd_ray.settings import EMBEDDED_STUDENT
from cgd_ray.student import student_source

_KEY = "a-key-of-this-benchmark"
_NUM_PROBLEMS = 200
_GOAL = 0.98  # of verdicts that agree
_NUM_EXAMPLES = 150  # of schemathesis for each operation
_FUZZED_S = 120
_PACKAGES = ("openai", "langchain-openai", "lm-eval", "schemathesis")
_SCRIPTS = str(Path(__file__).with_name("serving_client_scripts.py"))


def main() -> int:
    """Let every client ask, write the result, and say whether all worked."""
    parser = argparse.ArgumentParser(description="Others' clients against our served student.")
    parser.add_argument("--data", type=Path, required=True, help="folder of evaluation sets")
    problems: Path = parser.parse_args().data / "gsm8k" / "test.jsonl"
    python = os.environ.get("CLIENTS_PYTHON")
    if not python:
        sys.exit("CLIENTS_PYTHON is not set: name an interpreter with the clients")
    if not problems.is_file():
        sys.exit(f"{problems} is missing: --data names the folder that holds gsm8k/test.jsonl")
    model, port = student_source(EMBEDDED_STUDENT, Path(".cgd/bench")), free_port()
    url = f"http://127.0.0.1:{port}/v1"
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.touch(0o600)
        keys.write_text(_KEY, encoding="utf-8")
        command, environment = our_server(model, {}, [f"serve.api_keys_file={keys}"])
        ports = [word.format(port=port) for word in command]
        clients: dict[str, Callable[[], dict[str, Any]]] = {
            "openai": lambda: _script(python, "openai", url),
            "langchain-openai": lambda: _script(python, "langchain", url),
            "vllm bench serve": lambda: ask_with_vllm(model, port, 8, 32, _KEY),
            "schemathesis": lambda: _schemathesis(python, url, Path(folder)),
            "lm-eval": lambda: _lm_eval(python, url, problems, Path(folder)),
        }
        with running(ports, environment, port, _KEY):
            found = {name: _tried(name, client) for name, client in clients.items()}
    agreement = found["lm-eval"].get("agreement", 0.0)
    worked = all("failed" not in one for one in found.values())
    path = write_result(
        "serving-clients",
        "python -m benchmarks.serving_clients --data DIR",
        found,
        {"versions": _versions(python)},
        agreement,
        {},
        passed=worked and agreement >= _GOAL,
    )
    print(path)
    return 0 if worked else 1


def _tried(name: str, client: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        found = client()
    except (RuntimeError, subprocess.SubprocessError) as error:
        found = {"failed": str(error)[-2000:]}
    print(name, json.dumps(found)[:600], flush=True)
    return found


def _script(python: str, name: str, url: str) -> dict[str, Any]:
    return json.loads(_output([python, _SCRIPTS, name, url, _KEY]).strip().splitlines()[-1])


def _output(command: Sequence[str], allowed: Sequence[int] = (0,), seconds: int = 1800) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "OPENAI_API_KEY": _KEY, "HF_DATASETS_OFFLINE": "1"},
    )
    if done.returncode not in allowed:
        raise RuntimeError(f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}")
    return done.stdout


def openapi_schema() -> dict[str, Any]:
    """Return our routes as an OpenAPI document; vLLM's own models say what a body may be."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def _chat(body: ChatCompletionRequest) -> None: ...

    @app.post("/v1/completions")
    def _completions(body: CompletionRequest) -> None: ...

    @app.get("/v1/models")
    def _models() -> None: ...

    @app.get("/health")
    def _health() -> None: ...

    schema = app.openapi()
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        body = schema["components"]["schemas"][name]
        # So that valid requests reach the engine, and answers are short.
        body["properties"]["model"] = {"type": "string", "enum": ["student"]}
        body["properties"]["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": 8}
        body["required"] = [*body.get("required", ()), "model", "max_tokens"]
    return schema


def _schemathesis(python: str, url: str, folder: Path) -> dict[str, Any]:
    """Let schemathesis make requests of our schema, valid and not; a 5xx fails it."""
    schema = folder / "openapi.json"
    schema.write_text(json.dumps(openapi_schema()), encoding="utf-8")
    report = folder / "requests.ndjson"
    command = [str(Path(python).parent / "schemathesis"), "run", str(schema)]
    options = {
        "url": url.removesuffix("/v1"),
        "header": f"Authorization: Bearer {_KEY}",
        "checks": "not_a_server_error",
        "max-examples": str(_NUM_EXAMPLES),
        "phases": "examples,coverage,fuzzing",
        "request-timeout": "60",
        "max-time": str(_FUZZED_S),
        "seed": "1",
        "report": "ndjson",
        "report-ndjson-path": str(report),
    }
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    said = _output([*command, *words])
    statuses = Counter(_statuses(report))
    if any(status >= 500 for status in statuses):
        raise RuntimeError(f"5xx: {statuses}")
    cases = re.search(r"\d+ generated, \d+ passed", said)
    return {
        "statuses": {str(key): statuses[key] for key in sorted(statuses)},
        "test_cases": cases and cases.group(),
    }


def _statuses(report: Path) -> list[int]:
    """Return the status of every answer that schemathesis recorded."""
    found: list[int] = []

    def walk(node: Any) -> None:  # noqa: ANN401 - JSON of any shape
        if isinstance(node, dict):
            if isinstance(node.get("status_code"), int):
                found.append(node["status_code"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    for line in report.read_text(encoding="utf-8").splitlines():
        walk(json.loads(line))
    return found


def _lm_eval(python: str, url: str, problems: Path, folder: Path) -> dict[str, Any]:
    """Run lm-eval's gsm8k on the local problems, and grade the same answers ourselves."""
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "gsm8k_here.yaml").write_text(json.dumps(_task(problems)), encoding="utf-8")
    arguments = f"model=student,base_url={url}/chat/completions,num_concurrent=16,max_retries=1"
    _output(
        [
            *(str(Path(python).parent / "lm_eval"), "run", "--model", "local-chat-completions"),
            *("--model_args", arguments, "--tasks", "gsm8k_here", "--include_path", str(tasks)),
            *("--apply_chat_template", "--limit", str(_NUM_PROBLEMS), "--log_samples"),
            *("--output_path", str(folder / "lm_eval")),
        ]
    )
    (file,) = (folder / "lm_eval").rglob("samples_*.jsonl")
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    samples = [sample for sample in samples if sample["filter"] == "flexible-extract"]
    with GraderPool(2) as pool:
        grades = pool.grade_all([GradeItem(s["doc"]["answer"], s["resps"][0][0]) for s in samples])
    theirs = [sample["exact_match"] == 1.0 for sample in samples]
    disagree = [
        {
            "id": sample["doc"]["id"],
            "gold": sample["doc"]["answer"],
            "end_of_response": sample["resps"][0][0][-120:],
            "ours": grade.extracted,
            "theirs": sample["filtered_resps"][0],
        }
        for sample, grade, verdict in zip(samples, grades, theirs, strict=True)
        if grade.correct != verdict
    ]
    return {
        "problems": len(samples),
        "right_by_lm_eval": sum(theirs),
        "right_by_ours": sum(grade.correct for grade in grades),
        "agreement": round(1 - len(disagree) / len(samples), 4),
        "disagreements": disagree,
    }


def _task(problems: Path) -> dict[str, Any]:
    """Return lm-eval's task gsm8k on a local file, without examples, greedy."""
    return {
        "task": "gsm8k_here",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(problems.absolute())}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "Question: {{prompt}}\nAnswer:",
        "doc_to_target": "#### {{answer}}",
        "generation_kwargs": {
            "until": ["Question:"],
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": 256,
        },
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"],
            }
        ],
        "filter_list": [
            {
                "name": "flexible-extract",
                "filter": [
                    {
                        "function": "regex",
                        "group_select": -1,
                        "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)",
                    },
                    {"function": "take_first"},
                ],
            }
        ],
    }


def _versions(python: str) -> dict[str, str]:
    code = "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
    found = _output([python, "-c", code, *_PACKAGES]).split()
    return dict(zip(_PACKAGES, found, strict=True))


if __name__ == "__main__":
    sys.exit(main())
