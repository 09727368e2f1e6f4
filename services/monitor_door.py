"""Who may see the page: on loopback everybody on the machine, else who has the token.

On loopback the page answers to the names of loopback alone: a site elsewhere whose name is made to lead to this machine
(DNS rebinding) is told nothing.

The token comes once with the address that the operator opens. The page answers with a cookie and sends the browser on
to an address without it, so that it stands neither in a bookmark nor in a log; the cookie is what the web socket shows.
"""

import hmac
import ipaddress
import secrets
from typing import Any
from urllib.parse import urlsplit

from bokeh.server.tornado import BokehTornado
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler


def is_loopback(address: str) -> bool:
    """Return whether an address can be reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """Return a secret that nobody guesses, 256 bits, for an address."""
    return secrets.token_urlsafe(32)


class GuardedTornado(BokehTornado):  # type: ignore[misc]  # the base class is not typed
    """Bokeh's server behind a door.

    Args:
        applications: as Bokeh takes them.
        token: what has to be shown; None lets everybody in.
        cookie: name of the cookie; of each port another, as ports share cookies.
        options: as Bokeh takes them.
    """

    def __init__(
        self, applications: Any, *, token: str | None, cookie: str, **options: Any
    ) -> None:
        super().__init__(applications, log_function=lambda _: None, **options)
        self._secret = token
        self._cookie = cookie

    def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
        """Return what answers a request; only a refusal of one without the token or by another name."""
        if self._secret is None:
            if is_loopback(request.host_name.strip("[]")):
                return super().find_handler(request, **options)
            return self.get_handler_delegate(request, _Refuse)
        offered = request.query_arguments.get("token")
        if offered is not None and request.path == "/" and _same(offered[-1], self._secret):
            return self.get_handler_delegate(
                request, _Enter, {"cookie": self._cookie, "token": self._secret}
            )
        shown = request.cookies.get(self._cookie)
        if shown is not None and _same(shown.value.encode(), self._secret) and _own_origin(request):
            return super().find_handler(request, **options)
        return self.get_handler_delegate(request, _Refuse)


class _Enter(RequestHandler):
    """Keeps the token in a cookie that scripts cannot read, and goes on without it in the address."""

    def initialize(self, cookie: str, token: str) -> None:
        self._cookie_and_token = cookie, token

    def get(self) -> None:
        name, token = self._cookie_and_token
        self.set_cookie(name, token, httponly=True, samesite="Lax", path="/")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.redirect("/")


class _Refuse(RequestHandler):
    """Answers 403 to everything."""

    def prepare(self) -> None:
        self.set_status(403)
        self.finish("403: open the address that the monitor printed when it started")


def _same(offered: bytes, secret: str) -> bool:
    """Compare in a time that tells nothing about the secret."""
    return hmac.compare_digest(offered, secret.encode())


def _own_origin(request: HTTPServerRequest) -> bool:
    """Return whether a request comes from our own page, as far as the browser says where it comes from."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc.lower() == request.host.lower()
