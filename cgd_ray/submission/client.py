"""Ray's Jobs API over plain HTTP.

Whatever may pass by itself (no connection, a cut answer, a head that starts) is `Unreachable`; the
rest is a `UserError`. The token goes to the address that was given and nowhere else: redirects are
not followed.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from cgd_ray.errors import UserError
from cgd_ray.submission.address import Address
from cgd_ray.submission.jobs import Job, Submission, job_of
from cgd_ray.submission.package import Package
from cgd_ray.submission.token import Token, find_token

T = TypeVar("T")

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_ATTEMPTS, _FIRST_PAUSE_S = 6, 0.5
_DENIED = (401, 403)
_PASSING = (408, 429, 500, 502, 503, 504)
_CUT = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class Unreachable(Exception):
    """The head does not answer, or only in part; it may do so again.

    Args:
        reason: in words.
        status: that it answers; None where no answer came.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class JobsApi(AbstractContextManager["JobsApi"]):
    """The jobs of one cluster."""

    def __init__(self, address: Address, client: httpx.Client) -> None:
        self.address = address
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ray_version(self) -> str:
        """Return the version of Ray on the cluster."""
        return str(self._json("GET", "/api/version").get("ray_version", ""))

    def num_nodes(self) -> int:
        """Return how many nodes are alive."""
        told = self._json("GET", "/nodes?view=summary")
        nodes = told.get("data", {}).get("summary", [])
        return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in nodes)

    def has_package(self, uri: str) -> bool:
        """Return whether the cluster has a package; it then keeps it for a job to come."""
        return self._send("GET", _package_path(uri), missing_ok=True) is not None

    def upload(self, package: Package) -> None:
        """Send a package, if the cluster lacks it."""
        if not self.has_package(package.uri):
            self._send("PUT", _package_path(package.uri), content=package.data)

    def submit(self, submission: Submission) -> None:
        """Submit a job. Sent again after a lost answer, it is submitted once."""
        try:
            self._send("POST", "/api/jobs/", json=submission.body())
        except Unreachable as error:
            if self._send("GET", f"/api/jobs/{submission.id}", missing_ok=True) is None:
                raise error from None

    def job(self, job_id: str) -> Job:
        """Return what is known about a job.

        Raises:
            UserError: the cluster does not know it.
        """
        response = self._send("GET", f"/api/jobs/{job_id}", missing_ok=True)
        if response is None:
            raise UserError(
                f"{self.address.url} knows no job {job_id}: see `cgd jobs list`; a head that was "
                "restarted without fault tolerance has forgotten its jobs"
            )
        return job_of(_decoded(response))

    def jobs(self) -> list[Job]:
        """Return all jobs that were submitted."""
        told = self._json("GET", "/api/jobs/")
        return [job_of(job) for job in told if job.get("submission_id")]

    def log(self, job_id: str) -> str:
        """Return what a job has printed so far."""
        return str(self._json("GET", f"/api/jobs/{job_id}/logs").get("logs", ""))

    def stop(self, job_id: str) -> None:
        """Ask a job to stop; returns at once."""
        self._send("POST", f"/api/jobs/{job_id}/stop")

    def _json(self, method: str, path: str) -> Any:  # noqa: ANN401
        response = self._send(method, path)
        assert response is not None
        return _decoded(response)

    def _send(
        self,
        method: str,
        path: str,
        *,
        missing_ok: bool = False,
        **body: Any,  # noqa: ANN401
    ) -> httpx.Response | None:
        """Return the answer to one request; None for 404, where that is an answer.

        Raises:
            Unreachable: it may go through later.
            UserError: it will not.
        """
        try:
            response = self._client.request(method, path, **body)
        except httpx.TransportError as error:
            raise Unreachable(_in_words(error)) from error
        if response.status_code == 404 and missing_ok:
            return None
        _check_up(response)
        self._check(response, f"{method} {path}")
        return response

    def _check(self, response: httpx.Response, what: str) -> None:
        url, status = self.address.url, response.status_code
        if status in _DENIED:
            raise UserError(
                f"{url} refuses the token ({status}): it is not that of this cluster; `ray "
                "get-auth-token` on the head prints it"
            )
        if response.is_redirect:
            raise UserError(
                f"{url} redirects to {response.headers.get('Location', 'nowhere')}: give the "
                "address of the head itself"
            )
        if not response.is_success:
            raise UserError(f"{url} answers {status} to {what}: {_last_line(response.text)}")


def connect(
    address: Address, environment: Mapping[str, str] = os.environ, home: Path | None = None
) -> JobsApi:
    """Return the jobs of a cluster that lets nobody in without a token, or is this machine's.

    It is asked without a token first: what then answers would answer to everybody.

    Raises:
        UserError: nobody answers; it needs a token that we lack; it needs none and is not loopback.
    """
    client = _client(address, None)
    try:
        response = patiently(lambda: _greeting(address, client), address)
        if response.status_code not in _DENIED:
            return _without_token(address, client, response)
    except UserError:
        client.close()
        raise
    client.close()
    token = find_token(environment, home or Path.home())
    if token is None:
        raise UserError(
            f"{address.url} wants a token: copy the one that `ray get-auth-token` prints on the "
            "head to ~/.ray/auth_token (mode 600), or set RAY_AUTH_TOKEN_PATH"
        )
    return JobsApi(address, _client(address, token))


def patiently(what: Callable[[], T], address: Address) -> T:
    """Return what a request says; it is sent again a few times where it fails in passing.

    Raises:
        UserError: it failed each time.
    """
    pause_s = _FIRST_PAUSE_S
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return what()
        except Unreachable as error:
            if attempt == _ATTEMPTS:
                raise UserError(f"{address.url} fails {attempt} times: {error}") from error
            time.sleep(pause_s)
            pause_s *= 2
    raise AssertionError


def version_note(on_cluster: str) -> str | None:
    """Return a line if the cluster's Ray is not the one that we were tested with."""
    ours = version("ray")
    if on_cluster in ("", ours):
        return None
    return f"the cluster runs Ray {on_cluster}, this client is made for {ours}"


def _greeting(address: Address, client: httpx.Client) -> httpx.Response:
    """Return what answers to everybody at an address.

    Raises:
        Unreachable: somebody does, in part.
        UserError: nobody does.
    """
    try:
        response = client.get("/api/version")
    except _CUT as error:
        raise Unreachable(_in_words(error)) from error
    except httpx.TransportError as error:
        raise UserError(
            f"no answer from {address.url} ({_in_words(error)}): is the head up, and its "
            "dashboard port open to this machine?"
        ) from error
    _check_up(response)
    return response


def _check_up(response: httpx.Response) -> None:
    """Raise `Unreachable` for an answer that may be another soon."""
    if response.status_code in _PASSING:
        code = response.status_code
        raise Unreachable(f"it answers {code}: {_last_line(response.text)}", code)


def _without_token(address: Address, client: httpx.Client, response: httpx.Response) -> JobsApi:
    api = JobsApi(address, client)
    api._check(response, "GET /api/version")
    if "ray_version" not in _told(response):
        raise UserError(f"{address.url} is not the dashboard of a Ray head")
    if not address.loopback:
        raise UserError(
            f"{address.url} answers without a token, so whoever reaches it can run code there: set "
            "RAY_AUTH_MODE=token on every node of the cluster and start it again"
        )
    return api


def _client(address: Address, token: Token | None) -> httpx.Client:
    return httpx.Client(
        base_url=address.url,
        headers={"Authorization": f"Bearer {token.value}"} if token else {},
        timeout=_TIMEOUT,
        verify=httpx.create_ssl_context(),  # SSL_CERT_FILE names an authority of one's own
        trust_env=not address.loopback,  # a proxy has no business with this machine's own ports
    )


def _package_path(uri: str) -> str:
    return f"/api/packages/gcs/{uri.removeprefix('gcs://')}"


def _decoded(response: httpx.Response) -> Any:  # noqa: ANN401
    try:
        return response.json()
    except ValueError as error:
        raise Unreachable(f"an answer that is not JSON: {_last_line(response.text)}") from error


def _told(response: httpx.Response) -> Mapping[str, Any]:
    try:
        told = response.json()
    except json.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def _in_words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _last_line(text: str) -> str:
    """Return the line of an error page or traceback that says most."""
    lines = text.strip().splitlines()
    return lines[-1].strip()[:200] if lines else "(nothing)"
