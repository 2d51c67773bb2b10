"""Which addresses a teacher may have: a URL from a settings file must not reach inner services."""

import ipaddress
import socket
from urllib.parse import urlparse

from cgd_ray.errors import UserError

# Clouds' metadata services that are not link-local: Alibaba, Oracle, AWS over IPv6.
_METADATA = ("100.100.100.200", "192.0.0.192", "fd00:ec2::254")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


def check_base_url(base_url: str, *, allow_private: bool) -> None:
    """Refuse addresses that a prompt-carrying client must not call.

    Link-local addresses (cloud metadata) are always refused, private and loopback ones unless
    allowed by `teacher.allow_private_address`.

    Raises:
        UserError: the address is malformed, unknown or refused.
    """
    try:
        parsed = urlparse(base_url)
        port = parsed.port or 443
    except ValueError as error:
        raise UserError(f"teacher.base_url={base_url} is malformed: {error}") from error
    if parsed.username is not None or parsed.password is not None:
        raise UserError(
            "teacher.base_url holds a user name or password: set teacher.api_key_env or "
            "teacher.api_key_file instead"
        )
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise UserError(f"teacher.base_url={base_url} is not an http(s) address")
    try:
        found = socket.getaddrinfo(parsed.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"teacher.base_url={base_url}: host '{parsed.hostname}' is unknown ({why})"
        ) from error
    for *_, address in found:
        refuse = refused_address(str(address[0]), allow_private=allow_private)
        if refuse:
            raise UserError(f"teacher.base_url={base_url} points to {refuse}")


def refused_address(address: str, *, allow_private: bool) -> str | None:
    """Return why an IP address may not be called, with the setting to change; None if it may."""
    ip = _carried(ipaddress.ip_address(address.partition("%")[0]))
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or str(ip) in _METADATA:
        return (
            f"{address}, which is never a teacher (link-local, cloud metadata, multicast or "
            "unspecified)"
        )
    # Not `is_private`: the shared range 100.64.0.0/10 is neither private nor global.
    if not ip.is_global and not allow_private:
        return (
            f"{address}, a private address: set teacher.allow_private_address=true if that "
            "server is yours"
        )
    return None


def _carried(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 one leads to, if it does; else the address itself."""
    if not isinstance(ip, ipaddress.IPv6Address) or int(ip) <= 1:  # :: and ::1 are themselves
        return ip
    if ip in _NAT64 or ip in _COMPATIBLE:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
