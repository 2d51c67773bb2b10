"""The tutor as the platform meets it: a process of its own, spoken to over HTTP."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from cgd_ray.prompts.messages import Message
from cgd_ray.records import Critique, Draft, Prompt
from cgd_ray.teacher.critique import build_critique_messages
from cgd_ray.teacher.refinement import build_refinement_messages

PROMPT = Prompt("p", "What is 26 + 60 - 3?", "83", None, "test", "train")
DRAFT = Draft("p/0", "p", "26 + 60 = 86\n86 - 3 = 80", "stop", 1, 0)
CRITIQUE = Critique("p/0", "Step 2 is wrong.", "m", "t", 1, 0, 1)
KEY = "a-key-of-this-test"


def _await(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process is None or process.poll() is None, "the tutor ended"
        assert time.monotonic() < deadline, "the condition did not come true within 60 s"
        os.sched_yield()


@contextmanager
def _tutor(folder: Path, *options: str) -> Iterator[str]:
    """Yield the root URL of a tutor that has a key, and end it by its process id."""
    port_file, key_file = folder / "port", folder / "key"
    key_file.write_text(KEY + "\n")
    command = [sys.executable, "-m", "cgd_ray.tutor", "--port-file", str(port_file)]
    command += ["--api-key-file", str(key_file), "--exit-with-parent", str(os.getpid()), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            _await(port_file.exists, process)
            url = f"http://127.0.0.1:{port_file.read_text().strip()}"
            assert line == f"tutor: {url}/v1 (process {process.pid})\n"
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tutor")
    with _tutor(folder, "--log", str(folder / "log")) as root:
        yield root
    assert "critique {'prompt_tokens'" in (folder / "log").read_text()


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as connected:
        yield connected


def _openai(messages: list[Message]) -> list[ChatCompletionMessageParam]:
    return cast(list[ChatCompletionMessageParam], messages)


def _body(**changes: object) -> dict[str, object]:
    return {"model": "any", "messages": build_critique_messages(PROMPT, DRAFT), **changes}


def test_openai_client_gets_both_turns(client: openai.OpenAI):
    first = client.chat.completions.create(
        model="any", messages=_openai(build_critique_messages(PROMPT, DRAFT)), temperature=0, seed=1
    )
    assert first.model == "tutor-reveal-none"
    assert (first.object, first.choices[0].finish_reason) == ("chat.completion", "stop")
    text = first.choices[0].message.content
    assert text is not None and text.startswith("Step 2 is wrong: redo 86 - 3.")
    second = client.chat.completions.create(
        model="any", messages=_openai(build_refinement_messages(PROMPT, DRAFT, CRITIQUE))
    )
    expected = "26 + 60 = 86\n86 - 3 = 83\nThe answer is \\boxed{83}."
    assert second.choices[0].message.content == expected
    assert second.choices[0].message.refusal is None
    usage_1, usage_2 = first.usage, second.usage
    assert usage_1 is not None and usage_2 is not None
    assert usage_2.total_tokens == usage_2.prompt_tokens + usage_2.completion_tokens
    assert usage_1.prompt_tokens_details is not None and usage_2.prompt_tokens_details is not None
    assert usage_1.prompt_tokens_details.cached_tokens == 0
    assert usage_2.prompt_tokens_details.cached_tokens == usage_1.prompt_tokens


def test_openai_client_sees_refusal_and_bad_request(client: openai.OpenAI):
    colour = Prompt("p", "Name a colour.", None, None, "test", "train")
    refused = client.chat.completions.create(
        model="any", messages=_openai(build_critique_messages(colour, DRAFT))
    )
    message = refused.choices[0].message
    assert message.content is None
    assert message.refusal is not None and "no numbers" in message.refusal
    with pytest.raises(openai.BadRequestError, match="does not stream"):
        client.chat.completions.create(
            model="any", messages=_openai(build_critique_messages(PROMPT, DRAFT)), stream=True
        )


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_answers_are_cut_at_the_token_limit(http: httpx.Client, field: str):
    answer = http.post("/v1/chat/completions", json=_body(**{field: 4})).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["message"]["content"] == "Step 2 is wrong"
    assert answer["usage"]["completion_tokens"] == 4


def test_text_parts_are_taken(http: httpx.Client):
    messages = build_critique_messages(PROMPT, DRAFT)
    parts = [{"type": "text", "text": messages[1]["content"]}]
    whole = http.post("/v1/chat/completions", json=_body()).json()
    body = _body(messages=[messages[0], {"role": "user", "content": parts}])
    assert http.post("/v1/chat/completions", json=body).json()["choices"] == whole["choices"]


@pytest.mark.parametrize(
    "body, param",
    [
        (_body(stream=True), "stream"),
        (_body(n=2), "n"),
        (_body(max_tokens=0), "max_tokens"),
        (_body(max_tokens="many"), "max_tokens"),
        (_body(messages=[]), "messages"),
        (_body(messages=[{"role": "user"}]), "messages[0].content"),
        (_body(messages=[{"role": "king", "content": "x"}]), "messages[0].role"),
        (_body(messages=[{"role": "user", "content": [{"type": "x"}]}]), "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        ([], None),
    ],
)
def test_bad_requests_name_the_field(http: httpx.Client, body: object, param: str | None):
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"].startswith(param or "body")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused(http: httpx.Client, content: bytes):
    answer = http.post("/v1/chat/completions", content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("body: ")


def test_a_large_body_is_refused(http: httpx.Client):
    answer = http.post("/v1/chat/completions", content=b"x" * 1_000_001)
    assert answer.status_code == 413
    assert "1000000 bytes" in answer.json()["error"]["message"]


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {KEY}", "Bearer k\u00e9y"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_v1_wants_the_key(url: str, path: str, header: str | None):
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    method = "POST" if path.endswith("completions") else "GET"
    answer = httpx.request(method, url + path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_models_health_and_unknown_paths(http: httpx.Client, url: str):
    assert http.get("/v1/models").json()["data"][0]["id"] == "tutor-reveal-none"
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert http.get("/v1/nothing").json()["error"]["message"] == "Not Found"
    assert http.get("/v1/chat/completions").status_code == 405


def test_reveal_and_latency_are_options(tmp_path: Path):
    with _tutor(tmp_path, "--reveal", "answer", "--latency-ms", "50") as root:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{root}/v1/chat/completions", json=_body(), headers=headers)
    assert answer.elapsed.total_seconds() >= 0.05
    assert answer.json()["model"] == "tutor-reveal-answer"
    text = answer.json()["choices"][0]["message"]["content"]
    assert "86 - 3 = 83" in text and text.endswith("The answer is 83.")


def test_it_ends_with_its_parent(tmp_path: Path):
    port_file = tmp_path / "port"
    # A parent that starts the tutor, says the child's id and waits to be killed.
    parent_code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'cgd_ray.tutor', '--port-file',"
        " sys.argv[1], '--exit-with-parent', str(os.getpid())], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    command = [sys.executable, "-c", parent_code, str(port_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            child = int(parent.stdout.readline())
            _await(port_file.exists, parent)
        finally:
            parent.kill()
    _await(lambda: not _runs(child))


def test_it_does_not_start_for_another_parent():
    command = [sys.executable, "-m", "cgd_ray.tutor", "--exit-with-parent", "1"]
    if os.getpid() == 1:
        pytest.skip("this process is process 1")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "the parent process is gone\n"


def _runs(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
