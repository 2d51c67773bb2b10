"""A headless Chromium that a test drives over its debugging port."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from cgd_ray.processes import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_LIMIT_S = 60


class Page:
    """One open page."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    def open(self, address: str) -> None:
        """Go to an address, and wait until its scripts have begun."""
        self._ask("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, script: str) -> Any:
        """Return what a JavaScript expression evaluates to."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait for a JavaScript expression to become true."""
        deadline = time.monotonic() + _LIMIT_S
        while not self.value(script):
            assert time.monotonic() < deadline, f"not in {_LIMIT_S} s: {script}"
            time.sleep(0.02)

    def fill(self, name: str, text: str) -> None:
        """Put text into the field with an id, as typing and leaving it does."""
        field = f"document.getElementById({json.dumps(name)})"
        self.value(
            f"{field}.value = {json.dumps(text)}; {field}.dispatchEvent(new Event('change'))"
        )

    def text(self, name: str) -> str:
        """Return the text of the element with an id."""
        return self.value(f"document.getElementById({json.dumps(name)}).textContent")

    def screenshot(self) -> str:
        """Return a picture of the page, as base64 of a PNG."""
        return self._ask("Page.captureScreenshot")["data"]

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        question = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(question))
        while True:  # events come between
            answer = json.loads(self._connection.recv(timeout=_LIMIT_S))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Yield a page of a new browser, which takes any certificate.

    Args:
        folder: for its profile.
    """
    port = free_port()
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--ignore-certificate-errors",
        f"--user-data-dir={folder / 'profile'}",
        f"--remote-debugging-port={port}",
        "about:blank",
    ]
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with connect(_page_address(process, port), max_size=None) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(30)


def _page_address(process: subprocess.Popen[bytes], port: int) -> str:
    deadline = time.monotonic() + _LIMIT_S
    while True:
        assert process.poll() is None and time.monotonic() < deadline, "chromium did not start"
        try:
            targets = httpx.get(f"http://127.0.0.1:{port}/json").json()
        except httpx.TransportError:
            targets = []
        for target in targets:
            if target["type"] == "page":
                return target["webSocketDebuggerUrl"]
        time.sleep(0.05)
