"""The address of a cluster's head: where its Jobs API answers."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from cgd_ray.errors import UserError

_OWN_RAY = ("auto", "local")  # what `ray.init` takes, and no host
_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # as `ray job` reads them


@dataclass(frozen=True, slots=True)
class Address:
    """Where the Jobs API answers."""

    url: str  # scheme://host:port/prefix, without a slash at the end
    loopback: bool  # only this machine reaches it
    encrypted: bool


def parse_address(text: str) -> Address:
    """Return an address as `ray job` takes it: `https://head:8265`, or `head:8265` for http.

    Raises:
        UserError: it is not of that form, or holds a password.
    """
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    known = parts.scheme in ("http", "https") and port != -1
    if not known or not parts.hostname or text in _OWN_RAY:
        raise UserError(
            f"--address={text} is not the address of a head's dashboard, such as https://head:8265"
        )
    if parts.username is not None or parts.password is not None:
        raise UserError(
            f"--address: a user or password before {parts.hostname} would be shown in messages; "
            "Ray takes a token: set RAY_AUTH_TOKEN_PATH"
        )
    if parts.query or parts.fragment:
        raise UserError(f"--address={text} must end with the host, the port or a path")
    return Address(
        url=f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}",
        loopback=_is_loopback(parts.hostname),
        encrypted=parts.scheme == "https",
    )


def find_address(given: str | None, environment: Mapping[str, str] = os.environ) -> Address:
    """Return the address that is given, or else the environment's.

    Raises:
        UserError: there is none, or it is malformed.
    """
    found = [given, *(environment.get(name) for name in _VARIABLES)]
    text = next((text for text in found if text), None)
    if text is None:
        raise UserError(f"which cluster? Give --address https://head:8265 or set {_VARIABLES[0]}")
    return parse_address(text)


def _is_loopback(host: str) -> bool:
    # A name other than localhost may lead anywhere, today or tomorrow.
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
