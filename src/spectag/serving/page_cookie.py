"""The cookie by which the page in a browser shows that it knows the token."""

import hashlib
import hmac
import secrets

from starlette.requests import cookie_parser
from starlette.responses import Response


class PageCookie:
    """A cookie that only this server can make. It does not contain the token, because other ports of a host see it.

    Parameters
    ----------
    token : str
    port : int
        Is part of the name, so that two servers on a host do not overwrite each other's cookie.
    """

    def __init__(self, token: str, port: int) -> None:
        self._token, self._name = token, f"spectag-{port}"
        self._value = hmac.new(token.encode(), b"cookie of the page", hashlib.sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Whether this is the token."""
        return secrets.compare_digest(given.encode(errors="replace"), self._token.encode())

    def is_in(self, header: str) -> bool:
        """Whether a Cookie header contains the cookie."""
        given = cookie_parser(header).get(self._name, "")
        return secrets.compare_digest(given.encode(errors="replace"), self._value.encode())

    def add_to(self, response: Response) -> None:
        """Give the cookie to a browser, until it is closed. Pages of other sites cannot use it."""
        response.set_cookie(self._name, self._value, httponly=True, samesite="strict", path="/")
