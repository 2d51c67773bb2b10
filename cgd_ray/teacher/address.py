"""Which addresses a teacher may have: a URL from a settings file must not reach inner services."""

import ipaddress
import socket
from urllib.parse import urlparse

from cgd_ray.errors import UserError


def check_base_url(base_url: str, *, allow_private: bool) -> None:
    """Refuse addresses that a prompt-carrying client must not call.

    Link-local addresses (cloud metadata) are always refused, private and loopback ones unless
    allowed by `teacher.allow_private_address`.

    Raises:
        UserError: the address is malformed, unknown or refused.
    """
    parsed = urlparse(base_url)
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise UserError(f"teacher.base_url={base_url} is not an http(s) address")
    try:
        found = socket.getaddrinfo(parsed.hostname, parsed.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(
            f"teacher.base_url={base_url}: host '{parsed.hostname}' is unknown ({error.strerror})"
        ) from error
    for *_, address in found:
        refuse = refused_address(str(address[0]), allow_private=allow_private)
        if refuse:
            raise UserError(f"teacher.base_url={base_url} points to {refuse}")


def refused_address(address: str, *, allow_private: bool) -> str | None:
    """Return why an IP address may not be called, with the setting to change; None if it may."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return f"{address}, which is never a teacher (link-local, multicast or unspecified)"
    if (ip.is_private or ip.is_loopback) and not allow_private:
        return (
            f"{address}, a private address: set teacher.allow_private_address=true if that "
            "server is yours"
        )
    return None
