"""Reliability checks 17 to 19 of the served address: a real Ray Serve application over real HTTP.

The engines echo, slowly if asked, so that what is tested is everything around them.
"""

import os
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve

from cgd_ray.processes import free_port
from cgd_ray.runtime import ray_session
from cgd_ray.serving.app import build_application
from cgd_ray.serving.models import ServedModel
from cgd_ray.serving.server import served
from cgd_ray.settings import Settings, load
from tests.support.browser import CHROMIUM, browser
from tests.support.certificate import certificate
from tests.support.descendants import descendants
from tests.support.tiny_student import tiny_student

REPO = Path(__file__).resolve().parents[2]
KEY, OTHER = "first-key-of-this-test", "second-key-of-this-test"
AT_ONCE = 16
TIMEOUT_S = 4.0
NUM_SERVE_PROCESSES = 4  # two engines, the ingress and the proxy
# Everything that Ray Serve, Ray Serve LLM or vLLM would answer by themselves.
OTHER_PATHS = (
    "/docs /redoc /openapi.json /metrics /version /ping /load /tokenize /detokenize /v1/embeddings "
    "/v1/score /v1/rerank /v1/responses /v1/audio/transcriptions /v1/messages /v1/models/student "
    "/v1/load_lora_adapter /v1/unload_lora_adapter /invocations /collective_rpc /sleep /wake_up "
    "/reset_prefix_cache /start_profile /pooling /classify /server_info /pause"
)


@dataclass
class Api:
    """The served application under test."""

    url: str
    port: int
    settings: Settings
    models: list[ServedModel]
    keys: Path
    log: Path
    stack: ExitStack
    tls: ssl.SSLContext

    def client(self, key: str | None = KEY) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=10 * AT_ONCE)
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=30, verify=self.tls, limits=limits
        )

    def ask(self, text: str, key: str | None = KEY, **fields: Any) -> httpx.Response:
        with self.client(key) as client:
            return client.post("/chat/completions", json=chat(text, **fields))

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "student", "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Two engines of one model behind the gateway, over HTTPS, with one API key."""
    folder = tmp_path_factory.mktemp("gateway")
    keys, log = folder / "keys", folder / "echo.log"
    write_keys(keys, KEY)
    log.touch()
    certfile, keyfile = certificate(folder)
    port = free_port()
    overrides = [
        *(f"run.work_dir={folder}", f"serve.port={port}", f"serve.api_keys_file={keys}"),
        *("serve.min_replicas=2", "serve.max_replicas=2", f"serve.max_in_flight={AT_ONCE}"),
        *(f"serve.request_timeout_s={TIMEOUT_S}", "serve.body_timeout_s=1", "serve.drain_s=10"),
        *("serve.accelerator=cpu", f"serve.tls_certfile={certfile}"),
        f"serve.tls_keyfile={keyfile}",
    ]
    settings = load(REPO / "jobs/runs/demo.toml", overrides)
    models = [ServedModel("student", str(tiny_student(folder / "model")))]
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PYTHONPATH", str(REPO))
        patch.setenv("RAYLLM_VLLM_ENGINE_CLS", "tests.support.echo_engine.EchoEngine")
        patch.setenv("ECHO_LOG", str(log))
        stack.enter_context(ray_session(8))
        serving = stack.enter_context(ExitStack())
        url = serving.enter_context(served(settings, models))
        tls = ssl.create_default_context(cafile=certfile)
        yield Api(url, port, settings, models, keys, log, serving, tls)


def write_keys(path: Path, *keys: str) -> None:
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text("\n".join(keys))
    new.rename(path)


def until(happened: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_nothing_but_the_listed_routes_answers(api: Api) -> None:
    with api.client() as client:
        root = api.url.removesuffix("/v1")
        for path in OTHER_PATHS.split():
            for method in ("GET", "POST"):
                assert client.request(method, root + path, json={}).status_code == 404, path
        open_paths = {path: client.get(root + path).status_code for path in ("/", "/health")}
        assert open_paths == {"/": 200, "/health": 200}
        assert [m["id"] for m in client.get("/models").json()["data"]] == ["student"]
        # Ray Serve's proxy answers these two itself: that it is up, and the application's name.
        assert client.get(f"{root}/-/routes").json() == {"/": "cgd"}
        assert client.get(f"{root}/-/healthz").text == "success"


def test_it_speaks_https_alone(api: Api) -> None:
    assert api.url == f"https://127.0.0.1:{api.port}/v1"
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{api.port}/health")


def test_no_origin_is_allowed_unless_set(api: Api) -> None:
    with api.client() as client:
        response = client.get("/models", headers={"Origin": "https://evil.example"})
        assert response.status_code == 200
        assert not [name for name in response.headers if name.startswith("access-control")]


HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"></pre><script>document.title='owned'</script>"
)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install -y chromium")
def test_the_page_asks_for_the_key_and_shows_answers_as_text(api: Api, tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        page.open(f"{api.url.removesuffix('/v1')}/")
        page.until("document.getElementById('status').textContent.includes('401')")
        page.fill("key", KEY)
        page.until("document.getElementById('left').value === 'student'")
        assert page.text("status") == ""
        page.fill("question", HOSTILE)
        page.value("document.getElementById('send').click()")
        for side in ("left", "right"):
            page.until(f"document.getElementById('{side}-name').textContent.includes('tokens')")
            assert page.text(f"{side}-answer") == HOSTILE
            inside = f"document.getElementById('{side}-answer').childElementCount"
            assert page.value(inside) == 0
        assert page.value("document.title") == "cgd playground"
        assert KEY not in page.value("JSON.stringify([localStorage, sessionStorage, location])")
        page.fill("max-tokens", "1000000")
        page.value("document.getElementById('send').click()")
        page.until("document.getElementById('left-answer').textContent.startsWith('Error 400')")


def test_hostile_requests_are_refused_and_the_server_lives(api: Api) -> None:
    """Check 19."""
    assert api.ask("hi", key=None).status_code == 401
    assert api.ask("hi", key="wrong-key-of-this-test").status_code == 401
    with api.client(None) as client:
        assert client.get("/models").status_code == 401
    json_type = {"content-type": "application/json"}
    with api.client() as client:
        whole = client.post("/completions", content=b"x" * 50_000_000, headers=json_type)
        pieces = (b"x" * 100_000 for _ in range(500))
        chunked = client.post("/completions", content=pieces, headers=json_type)
    assert (whole.status_code, chunked.status_code) == (413, 413)
    for fields in ({"n": 10**6}, {"max_tokens": 10**9}, {"chat_template": "{{ 1 }}"}):
        response = api.ask("hi", **fields)
        assert response.status_code == 400
        assert response.json()["error"]["param"] in fields
    assert api.ask("hi", model="nobody").status_code == 404
    assert api.ask("hi there").json()["choices"][0]["message"]["content"] == "hi there"


@contextmanager
def load_of(api: Api, num_clients: int = 4) -> Iterator[list[int | str]]:
    """Ask without a pause in the block; the list fills with statuses, or with what went wrong."""
    outcomes: list[int | str] = []
    stop = threading.Event()

    def ask() -> None:
        with api.client() as client:
            while not stop.is_set():
                try:
                    response = client.post("/chat/completions", json=chat("wait 0.1 x"))
                    outcomes.append(response.status_code)
                except httpx.HTTPError as error:
                    outcomes.append(repr(error))

    with ThreadPoolExecutor(num_clients) as pool:
        asking = [pool.submit(ask) for _ in range(num_clients)]
        try:
            until(lambda: len(outcomes) >= 2 * num_clients)
            yield outcomes
        finally:
            stop.set()
    assert all(one.exception() is None for one in asking)


def test_an_engine_that_is_killed_takes_no_request_with_it(api: Api) -> None:
    """Check 18: what the dead engine had not begun to answer, another one answers."""
    until(lambda: count(api, "up") >= 2)
    num_up = count(api, "up")
    with load_of(api) as outcomes:
        pid = int(next(line for line in reversed(api.lines()) if "start" in line).split()[1])
        os.kill(pid, signal.SIGKILL)
        num_before = len(outcomes)
        until(lambda: len(outcomes) > num_before + 20)
    assert Counter(outcomes).keys() == {200}
    until(lambda: count(api, "up") == num_up + 1, 60)


def test_keys_rotate_while_it_serves(api: Api) -> None:
    write_keys(api.keys, KEY, OTHER)
    until(lambda: api.ask("hi", key=OTHER).status_code == 200)
    assert api.ask("hi").status_code == 200
    write_keys(api.keys, OTHER)
    until(lambda: api.ask("hi").status_code == 401)
    write_keys(api.keys, KEY)
    until(lambda: api.ask("hi").status_code == 200)


def test_a_client_that_sends_slowly_is_cut_off(api: Api) -> None:
    with (
        socket.create_connection(("127.0.0.1", api.port), 15) as plain,
        api.tls.wrap_socket(plain, server_hostname="127.0.0.1") as slow,
    ):
        slow.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
        )
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_an_engine_stops_when_its_client_vanishes(api: Api) -> None:
    num_cancelled = count(api, "cancelled")
    with (
        api.client() as client,
        client.stream("POST", "/chat/completions", json=chat("wait 3 x", stream=True)) as stream,
    ):
        next(stream.iter_lines())
    until(lambda: count(api, "cancelled") == num_cancelled + 1)


def test_an_engine_stops_when_its_time_is_over(api: Api) -> None:
    num_cancelled = count(api, "cancelled")
    start = time.monotonic()
    response = api.ask("wait 30 x")
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    assert TIMEOUT_S <= time.monotonic() - start < TIMEOUT_S + 3
    until(lambda: count(api, "cancelled") == num_cancelled + 1)


def count(api: Api, word: str) -> int:
    return sum(line.startswith(word) for line in api.lines())


def test_what_passes_is_counted_for_prometheus(api: Api) -> None:
    assert api.ask("hi", key=None).status_code == 401
    port = ray.nodes()[0]["MetricsExportPort"]
    wanted = "ray_cgd_gateway_requests_total{"

    def counted() -> bool:
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
        ours = [line for line in lines if line.startswith(wanted)]
        return any('status="401"' in line for line in ours)

    until(counted)


def test_ten_times_too_many_are_told_to_come_back_in_bounded_memory(api: Api) -> None:
    """Check 17."""

    def one(_: int) -> httpx.Response:
        return client.post("/chat/completions", json=chat("wait 1.5 " + "x" * 900_000))

    before = memory_mib()
    with (
        api.client() as client,
        ThreadPoolExecutor(10 * AT_ONCE) as pool,
    ):
        responses = list(pool.map(one, range(10 * AT_ONCE)))
    counts = Counter(response.status_code for response in responses)
    assert set(counts) == {200, 429}
    assert counts[200] >= AT_ONCE
    refused = [response for response in responses if response.status_code == 429]
    assert {response.headers["retry-after"] for response in refused} == {"1"}
    assert {response.json()["error"]["code"] for response in refused} == {"overloaded"}
    # 160 bodies of 0.9 MB are 140 MiB: they pass through, they do not pile up in every process.
    assert memory_mib() - before < 400
    assert api.ask("hi").status_code == 200


def memory_mib() -> float:
    """Return the memory that Ray Serve's processes below this one have to themselves, in MiB.

    Ray's object store, which has its own limit, counts once for each process that has read it.
    """
    pids = [*descendants("ServeReplica"), *descendants("ProxyActor")]
    assert len(pids) == NUM_SERVE_PROCESSES, "growth is of the same processes, all started"
    pages = 0
    for pid in pids:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
        pages += int(resident) - int(shared)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_rolling_update_loses_no_request(api: Api) -> None:
    """Check 18."""
    num_up = count(api, "up")
    changed = api.settings.sampling.model_copy(update={"max_num_seqs": 7})
    settings = api.settings.model_copy(update={"sampling": changed})
    with load_of(api) as outcomes:
        serve.run(build_application(settings, api.models), name="cgd", route_prefix="/")
        until(lambda: count(api, "up") >= num_up + 2, 60)
        num_before = len(outcomes)
        until(lambda: len(outcomes) > num_before + 20)
    assert Counter(outcomes).keys() == {200}


def test_answers_under_way_are_finished_before_it_stops(api: Api) -> None:
    """Last: it stops the server."""
    num_started = count(api, "start")
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(api.ask, "wait 3 x") for _ in range(4)]
        until(lambda: count(api, "start") == num_started + 4)
        api.stack.close()
        assert [answer.result().status_code for answer in answers] == [200] * 4
