"""What stands before the pages: who may ask, what may be asked, and what a browser may do with the answer.

    Host        127.0.0.1, localhost or [::1], with the server's own port: a page of another name that resolves to this
                machine (DNS rebinding) gets nothing
    method      GET and HEAD everywhere; POST at the addresses that begin and stop runs, with a token of this process
                and, where the browser says where the request comes from, from a page of this server; what the form
                holds is handed on as scope["form"]
    size        path, query and body are bounded
    answer      a content security policy without inline scripts or styles, no frames, no referrer, no sniffing

Refusals are plain text that holds nothing of the request.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NAMES = ("127.0.0.1", "localhost", "[::1]")
MOST_PATH = 512
MOST_QUERY = 2048
MOST_BODY = 4096
MOST_HEADERS = 64
MOST_HEADER_BYTES = 32768
MOST_FIELDS = 16

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS: tuple[tuple[bytes, bytes], ...] = tuple(
    (name.encode(), value.encode())
    for name, value in (
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    )
)


class Refused(Exception):
    """A request that is not served: its status, one sentence, and headers besides."""

    def __init__(self, status: int, sentence: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, tuple(headers)


class Guard:
    """An ASGI application around another, `app`, that lets through what may be asked and completes answers' headers.

    posts: whether a path is one that POST may ask for. port: the server's own, None to take any. `token` is what forms
    have to carry.
    """

    app: App

    def __init__(self, *, posts: Callable[[str], bool], port: int | None = None) -> None:
        self.posts = posts
        self.token = secrets.token_urlsafe(32)
        ports = ("", f":{port}") if port == 80 else (f":{port}",)
        self.hosts = None if port is None else frozenset(name + end for name in NAMES for end in ports)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            headers = self._check(scope)
            if scope["method"] == "POST":
                scope = {**scope, "form": await self._form(headers, receive)}
                receive = _nothing_more
        except Refused as refused:
            await refuse(scope, send, refused)
            return

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        await self.app(scope, receive, complete)

    def _check(self, scope: Scope) -> Mapping[bytes, bytes]:
        """The headers of a request that may be asked by its method, size and host."""
        if (
            len(scope["headers"]) > MOST_HEADERS
            or sum(len(n) + len(v) for n, v in scope["headers"]) > MOST_HEADER_BYTES
        ):
            raise Refused(431, "there is too much in the headers")
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in headers and name in (b"host", b"origin", b"content-length", b"content-type"):
                raise Refused(400, "a header that is sent once was sent twice")
            headers[name] = value
        self._check_host(headers.get(b"host", b"").decode("latin-1"))
        path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
        if len(path) > MOST_PATH or len(scope["query_string"]) > MOST_QUERY:
            raise Refused(414, "the address is too long")
        if scope["method"] == "POST" and self.posts(scope["path"]):
            if (
                not headers.get(b"content-length", b"0").isdigit()
                or int(headers.get(b"content-length", b"0")) > MOST_BODY
            ):
                raise Refused(413, "the body is too large")
        elif scope["method"] not in ("GET", "HEAD"):
            allowed = b"GET, HEAD, POST" if self.posts(scope["path"]) else b"GET, HEAD"
            raise Refused(405, "this method is not served here", [(b"allow", allowed)])
        return headers

    def _check_host(self, host: str) -> None:
        known = host in self.hosts if self.hosts is not None else _name(host) in NAMES
        if not known:
            raise Refused(421, "this server answers to the names of this machine alone")

    async def _form(self, headers: Mapping[bytes, bytes], receive: Receive) -> dict[str, str]:
        """The form of a POST, once where it comes from and its token are checked."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin != f"http://{headers[b'host'].decode('latin-1')}":
            raise Refused(403, "only pages of this server begin and stop runs")
        if headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin":
            raise Refused(403, "only pages of this server begin and stop runs")
        if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != b"application/x-www-form-urlencoded":
            raise Refused(415, "a form is sent as application/x-www-form-urlencoded")
        body = await _body(receive)
        try:
            form = dict(parse_qsl(body.decode("latin-1"), max_num_fields=MOST_FIELDS))
        except ValueError:
            raise Refused(400, "the form has too many fields") from None
        if not hmac.compare_digest(form.get("token", "").encode(errors="replace"), self.token.encode()):
            raise Refused(403, "the page is older than the server: load it anew")
        return form


async def _nothing_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "the body ended early")
        body += message.get("body", b"")
        if len(body) > MOST_BODY:
            raise Refused(413, "the body is too large")
        if not message.get("more_body"):
            return bytes(body)


def _name(host: str) -> str:
    """The name in a Host header without its port; "" where it is not well formed."""
    name, colon, port = host.rpartition(":")
    if colon and not host.endswith("]"):
        return name if port.isdigit() and len(port) <= 5 else ""
    return host


async def refuse(scope: Scope, send: Send, refused: Refused) -> None:
    """Answer with a status and one sentence."""
    body = f"{refused.sentence}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *refused.headers,
        *HEADERS,
    ]
    if refused.status in (400, 413, 431):
        # The rest of the request, which may be long, is not read.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
