"""
Who may read the pages: this machine's user, in pages that this server made.

Conversations are private, and their text is hostile: it comes from users, tools and models. The guard
checks every request and refuses what a browser sends on behalf of other sites.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types view"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NO_STORE: Final = "no-store"


class Guard:
    """
    Lets through what the user of this machine asks for, and adds the headers that bind the browser.

    hosts: the values of the Host header that are accepted, which stops DNS rebinding.
    key: the secret of the address that was printed; None lets everybody on the machine in.
    cookie: the name of the cookie that keeps the key; a browser sends cookies to all ports of a host.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str], key: str | None, cookie: str
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._key = key
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a web socket is closed without an answer
        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if headers.get("host", "").lower() not in self._hosts:
            return PlainTextResponse("This server does not answer for that host name.", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("The page only reads.", 405, {"Allow": "GET, HEAD"})
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        is_link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
            "navigate",
            "document",
        )
        if is_foreign and not is_link:
            return PlainTextResponse("Other sites may not read this page.", 403)
        return None if self._key is None else self._check_key(scope, headers, self._key)

    def _check_key(self, scope: Scope, headers: Headers, key: str) -> Response | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "key"]
        if given:
            if not _equal(given[-1], key):
                return _no_key()
            rest = urlencode([pair for pair in query if pair[0] != "key"])
            answer = RedirectResponse(f"{scope['path']}{'?' if rest else ''}{rest}", 303)
            # Lax: with Strict, a link from a chat to this page would arrive without the cookie.
            answer.set_cookie(self._cookie, key, httponly=True, samesite="lax")
            return answer
        return None if _equal(_cookie(headers, self._cookie), key) else _no_key()


def _no_key() -> Response:
    return PlainTextResponse("Open the address that `eventlog view` printed: it has the key.", 403)


def _equal(given: str, key: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key.encode())


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", NO_STORE)
        await send(message)

    return with_headers
