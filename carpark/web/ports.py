"""Ports: opening one with an error that says what to do, whose it is, asking one, and why it is silent."""

from __future__ import annotations

import base64
import binascii
import errno
import hmac
import ipaddress
import os
import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from carpark.errors import InvalidSetting, PortTaken

if TYPE_CHECKING:
    import requests

IDENTITY = "carpark"
"""What our own pages say in the header ``Server``."""

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - these are looked up, not bound to
"""Where to ask for what is bound to every address."""

_BACKLOG = 64
_LOCAL_NAMES = {"localhost"}


def listen(host: str, port: int, setting: str, backlog: int = _BACKLOG) -> socket.socket:
    """Open a port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InvalidSetting("CARPARK_BIND", host, f"an address of this machine ({cause_of(error)})") from error
    is_ipv6 = family == socket.AF_INET6
    try:
        return socket.create_server(address, family=family, backlog=backlog, dualstack_ipv6=is_ipv6)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(setting, f"{in_url(host)}:{port}") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidSetting("CARPARK_BIND", host, "an address of this machine") from error
        said = os.strerror(error.errno or 0).lower()
        raise InvalidSetting(setting, str(port), f"a port that this user may open ({said})") from error


def in_url(host: str) -> str:
    """Write an address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Tell whether an address is that of this machine for itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in _LOCAL_NAMES


def names_loopback(header: str) -> bool:
    """Tell whether a request was made to this machine's name for itself, not to another name that leads here."""
    try:
        return is_loopback(urlsplit(f"//{header}").hostname or "")
    except ValueError:
        return False


def is_login(header: str, login: str) -> bool:
    """Tell whether a request has a user's name and password."""
    scheme, _, encoded = header.partition(" ")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(decoded, login.encode())


def is_same_site(origin: str | None, host: str) -> bool:
    """Tell whether what changes something was not sent by a page of another site."""
    _, found, place = (origin or "").partition("://")
    return origin is None or (bool(found) and place.lower() == host.lower())


def client() -> requests.Session:
    """Make a client for the HTTP servers that settings name."""
    import requests  # takes a tenth of a second, which who asks nothing need not wait for

    session = requests.Session()
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    return session


def cause_of(error: BaseException) -> str:
    """Say in a few words why a server cannot be reached, whatever layers of libraries the error came through."""
    chain = _chain(error)
    for each in reversed(chain):
        if isinstance(each, TimeoutError):
            return "no answer in time"
        if isinstance(each, ssl.SSLError):
            reason = getattr(each, "reason", None) or each.strerror or type(each).__name__
            return f"TLS: {reason.replace('_', ' ').lower()}"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror[0].lower() + each.strerror[1:]
    if any("timeout" in type(each).__name__.lower() for each in chain):
        return "no answer in time"
    return " ".join(str(chain[-1]).split()) or type(chain[-1]).__name__


def is_tls_refusal(error: BaseException) -> bool:
    """Tell whether a server is there, and TLS with it is as good as impossible with these settings."""
    return any(
        isinstance(each, ssl.SSLCertVerificationError) or getattr(each, "reason", None) == "WRONG_VERSION_NUMBER"
        for each in _chain(error)
    )


def _chain(error: BaseException) -> list[BaseException]:
    """Give an error and what it came from, the innermost last."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    return chain
