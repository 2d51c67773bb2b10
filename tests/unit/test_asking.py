"""`cgd ask` and the page: answers side by side, from a real HTTP server."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from cgd_ray.errors import UserError
from cgd_ray.serving.asking import ask_models, main, side_by_side
from cgd_ray.serving.playground import playground_pages

KEY = "a-key-of-this-test"


class Server(BaseHTTPRequestHandler):
    """Two models that answer with their name and the question."""

    def do_GET(self) -> None:
        self._reply({"data": [{"id": "base"}, {"id": "student"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = f"{body['model']} read {body['messages'][0]['content']}"
        self._reply({"choices": [{"message": {"content": text}}]})

    def _reply(self, data: dict[str, Any]) -> None:
        known = self.headers.get("Authorization") == f"Bearer {KEY}"
        content = json.dumps(data if known else {"error": {"message": "no key"}}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serving() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_every_served_model_is_asked() -> None:
    with serving() as url:
        answers = ask_models("2 + 2 =", base_url=url, key=KEY)
        one = ask_models("2 + 2 =", base_url=url, key=KEY, models=["student"])
    assert answers == [("base", "base read 2 + 2 ="), ("student", "student read 2 + 2 =")]
    assert one == answers[1:]


def test_the_command_takes_its_key_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CGD_API_KEYS", raising=False)
    with serving() as url:
        assert main(["hello", "--url", url]) == 2
        assert "401 no key: set $CGD_API_KEYS or --keys-file" in capsys.readouterr().err
        monkeypatch.setenv("CGD_API_KEYS", KEY)
        assert main(["hello", "--url", url]) == 0
    assert "student read hello" in capsys.readouterr().out


def test_a_server_that_is_away_is_one_line() -> None:
    with pytest.raises(UserError, match="is `cgd serve` up"):
        ask_models("x", base_url="http://127.0.0.1:9/v1", key=None)


def test_answers_stand_in_columns_where_there_is_room() -> None:
    answers = [("base", "one two three four five six"), ("student", "1\n\n2")]
    wide = side_by_side(answers, 63)
    assert wide.splitlines()[0] == "base" + " " * 29 + "student"
    assert all(len(line) <= 63 for line in wide.splitlines())
    narrow = side_by_side(answers, 62)
    assert narrow.splitlines()[:3] == ["base", "----", answers[0][1]]


def test_an_answer_cannot_steer_the_terminal() -> None:
    shown = side_by_side([("m", "a\x1b]0;title\x07b\u202e")], 80)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert r"\x1b" in shown


def test_the_page_can_run_nothing_but_its_own_script() -> None:
    pages = playground_pages()
    assert sorted(pages) == ["/", "/playground.css", "/playground.js"]
    html = pages["/"].content.decode()
    assert re.findall(r"<script[^>]*>", html) == ['<script src="/playground.js" defer>']
    assert not re.search(r"<style|\bstyle=|\bon\w+=|https?://", html)
    for page in pages.values():
        policy = dict(page.headers)["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    script = pages["/playground.js"].content.decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)
    assert not re.search(r"localStorage|sessionStorage|document\.cookie", script)
