"""Who can reach the served address, and whether it is guarded enough for that."""

from ipaddress import ip_address

from cgd_ray.errors import UserError
from cgd_ray.serving.api_keys import read_keys
from cgd_ray.settings import ServeSettings


def is_loopback(host: str) -> bool:
    """Return whether a host or address names this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def own_key(serve: ServeSettings) -> str | None:
    """Return a key to ask our own server with; None if it wants none.

    Raises:
        UserError: the keys are unusable.
    """
    return next(iter(read_keys(serve.api_keys_file, serve.api_keys_env)), None)


def require_guard(serve: ServeSettings) -> list[str]:
    """Return the API keys that the settings name; none is enough on a loopback address.

    Raises:
        UserError: others can reach the address and there is no key, or the keys are unusable.
    """
    keys = read_keys(serve.api_keys_file, serve.api_keys_env)
    if not keys and not is_loopback(serve.host):
        raise UserError(
            f"serve.host={serve.host} can be reached from other machines and there is no API key: "
            f"set serve.api_keys_file or ${serve.api_keys_env}, or serve.host=127.0.0.1"
        )
    return keys


def exposure_lines(serve: ServeSettings, num_keys: int) -> list[str]:
    """Return what whoever starts the server should know about who can use it."""
    if not num_keys:
        return ["no API key: this machine alone is served"]
    plural = "s" if num_keys > 1 else ""
    lines = [f"{num_keys} API key{plural}; every path but /health and the page wants one"]
    if serve.tls_certfile is None and not is_loopback(serve.host):
        lines.append(
            "no TLS: keys and texts can be read on the way; set serve.tls_certfile, or put a "
            "proxy that has it in front"
        )
    return lines
