"""Answers that are made once: bytes with an entity tag, kept up to a bound, told from one another by what was asked."""

import gzip
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from contexture.catalogue.guard import Scope, Send

HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
LEAST_COMPRESSED = 1024
MOST_BYTES = 48 * 2**20
_LEVEL = 5


@dataclass(slots=True)
class Answer:
    """What is sent for a page: status, type, body. The tag is the body's hash; it is compressed once it is asked so."""

    body: bytes
    type: str = HTML
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    keep: bool = True
    tag: bytes = field(init=False)
    _zipped: bytes | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.tag = b'"' + hashlib.sha256(self.body).hexdigest()[:24].encode() + b'"'

    @property
    def size(self) -> int:
        """Bytes that it holds, a compressed copy reckoned in."""
        return len(self.body) + len(self.body) // 3 + 512

    def asked(self, headers: Mapping[bytes, bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and body for a GET with these headers; 304 and nothing where the asker has it already."""
        zipped = len(self.body) >= LEAST_COMPRESSED and accepts_gzip(headers.get(b"accept-encoding", b""))
        body = self._compressed() if zipped else self.body
        tag = self.tag[:-1] + b'-z"' if zipped else self.tag
        sent = [
            (b"etag", tag),
            (b"vary", b"accept-encoding, hx-request"),
            (b"cache-control", b"no-cache" if self.keep else b"no-store"),
            *self.headers,
        ]
        if self.status == 200 and matches(headers.get(b"if-none-match", b""), tag):
            return 304, sent, b""
        if zipped:
            sent.append((b"content-encoding", b"gzip"))
        sent += [(b"content-type", self.type.encode()), (b"content-length", str(len(body)).encode())]
        return self.status, sent, body

    def _compressed(self) -> bytes:
        if self._zipped is None:
            self._zipped = gzip.compress(self.body, _LEVEL, mtime=0)
        return self._zipped


async def send_answer(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer to whoever asked for it with GET, HEAD or POST."""
    status, headers, body = answer.asked(dict(scope["headers"]))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def accepts_gzip(header: bytes) -> bool:
    """Whether a header Accept-Encoding allows gzip.

    >>> accepts_gzip(b"br, gzip;q=0.5"), accepts_gzip(b"gzip;q=0"), accepts_gzip(b"")
    (True, False, False)
    """
    for part in header.split(b","):
        name, _, quality = part.strip().lower().partition(b";")
        if name.strip() == b"gzip":
            return quality.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def matches(header: bytes, tag: bytes) -> bool:
    """Whether a header If-None-Match names a tag, weakly compared (RFC 9110, 13.1.2)."""
    return bool(header) and (
        header.strip() == b"*" or tag in (part.strip().removeprefix(b"W/") for part in header.split(b","))
    )


class Answers:
    """Answers by what was asked, the least lately asked dropped beyond `most` bytes. Safe between threads."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.most = most
        self._kept: OrderedDict[Hashable, Answer] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()

    def get(self, asked: Hashable) -> Answer | None:
        """The answer kept for this, which is then the latest asked."""
        with self._guard:
            answer = self._kept.get(asked)
            if answer is not None:
                self._kept.move_to_end(asked)
            return answer

    def keep(self, asked: Hashable, answer: Answer) -> None:
        """Keep an answer."""
        with self._guard:
            if asked in self._kept:
                self._bytes -= self._kept.pop(asked).size
            self._kept[asked] = answer
            self._bytes += answer.size
            while self._bytes > self.most and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].size

    def clear(self) -> None:
        """Forget everything."""
        with self._guard:
            self._kept.clear()
            self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)
