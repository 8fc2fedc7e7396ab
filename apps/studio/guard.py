"""What stands in front of the page: which requests pass at all, how long they may be, and whose they are.

Gradio offers much that the studio does not use (a proxy, histories, links to somebody's state, other servers' files by
address). Here only what the page needs passes; the rest is not there.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import unquote, urlsplit

COOKIE = "pmv_studio"
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_YEAR = 365 * 24 * 3600
_API = r"gradio_api/"
_PASSES = re.compile(
    r"/(|config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon.*|login/?|logout|static/.*|assets/.*|"
    r"svelte/.*|studio/.*|"
    + _API
    + r"(startup-events|app_id/?|theme\.css|info/?|login_check/?|user/?|upload/?|upload_progress|file=(?!https?:).*|"
    r"queue/(join|data)/?|heartbeat/[\w-]+|reset/?|cancel|component_server/?|run/\w+/?))",
    re.IGNORECASE,
)
_UPLOAD, _LAYERS, _ELSE = "upload", "component_server", 1 << 20
_MOST_LAYERS = 16 << 20
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Of the page: nothing comes from anywhere but the studio."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def cookie_of(scope: Scope) -> str | None:
    """The secret in a browser's cookie."""
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                found = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            except CookieError:
                return None
            if found is not None and _SECRET.fullmatch(found.value):
                return found.value
    return None


def identity_of(request: Any) -> str | None:
    """Who sent a request of Starlette's: an account, or the secret of a browser; None = nobody who is known."""
    app = request.app
    if app.auth is None:
        secret = cookie_of(request.scope)
        return None if secret is None else f"browser:{secret}"
    for name in (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"):
        if (account := app.tokens.get(request.cookies.get(name))) is not None:
            return f"account:{account}"
    return None


class Guard:
    """Middleware around the whole application.

    Args:
        app: what it stands in front of.
        hosts: names that the page may be asked for by; None = any. A studio on the loopback interface has some, since
            a page of somebody else's can make a browser take a name of its own for this machine.
        most_upload: bytes of a picture.
        with_cookies: whether browsers are known by a cookie; not where there are accounts.
    """

    def __init__(self, app: Any, hosts: frozenset[str] | None, most_upload: int, with_cookies: bool) -> None:
        self.app, self.hosts, self.most_upload, self.with_cookies = app, hosts, most_upload, with_cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif refused := self._refused(scope):
            await _answer(send, *refused)
        else:
            await self.app(scope, self._bounded(scope, receive), self._signed(scope, send))

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 403, "this studio is asked for by the name of this machine's loopback interface alone"
        origin = headers.get("origin")
        if origin is not None and origin != "null":
            own = {host.lower(), headers.get("x-forwarded-host", host).lower()}
            if urlsplit(origin).netloc.lower() not in own:
                return 403, "asked for by a page of somebody else's"
        elif origin == "null" and scope["method"] not in ("GET", "HEAD"):
            return 403, "asked for by a page of nobody's"
        if not _PASSES.fullmatch(unquote(scope["path"])):
            return 404, "not found"
        try:
            length = int(headers.get("content-length", "0"))
        except ValueError:
            return 400, "no length"
        return (413, "too long") if length > self._most(scope) else None

    def _most(self, scope: Scope) -> int:
        path = scope["path"].rstrip("/")
        if path.endswith(_UPLOAD):
            return self.most_upload + _ELSE
        return _MOST_LAYERS if path.endswith(_LAYERS) else _ELSE

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        left = self._most(scope)

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        return bounded

    def _signed(self, scope: Scope, send: Send) -> Send:
        """Adds what a browser is to keep to, and a secret where it has none yet."""
        is_new = self.with_cookies and scope["path"] == "/" and cookie_of(scope) is None

        async def signed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                names = {name.lower() for name, _ in headers}
                if b"content-security-policy" not in names:
                    headers.append((b"content-security-policy", POLICY.encode()))
                headers += [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
                if is_new:
                    attributes = f"Path=/; Max-Age={_YEAR}; HttpOnly; SameSite=Strict"
                    headers.append((b"set-cookie", f"{COOKIE}={secrets.token_urlsafe(32)}; {attributes}".encode()))
                message = {**message, "headers": headers}
            await send(message)

        return signed


def _name(host: str) -> str:
    """A Host header's name without its port."""
    return (host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]).lower()


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
