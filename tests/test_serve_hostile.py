"""Two thousand requests that mean ill: none breaks the server, sees a file not listed, or is echoed as markup."""

import random
import re
from collections.abc import Iterator
from html import escape
from urllib.parse import quote, quote_from_bytes

import pytest

from serve_toys import HOST, Reply, Site, make_site, write_catalogue

NUM_REQUESTS = 2000
SECRET = "the secret that stands beside the catalogue"
SECRETS = (SECRET, "root:x:0:0", "[build-system]", "def test_", "BEGIN PRIVATE", "Traceback (most recent")

SCRIPTS = (
    "<script>zq{n}</script>", "\"><img src=x onerror=zq{n}>", "'><svg/onload=zq{n}>", "<zq{n}>", "</title><zq{n}>",
    "{{{{ zq{n} }}}}", "${{zq{n}}}", "javascript:zq{n}", "<!--zq{n}-->", "]]><zq{n}>", "\u2028<zq{n}>", "<zq{n}\x00>",
    "'; DROP TABLE papers; --zq{n}", '" OR key MATCH "zq{n}', "NEAR(zq{n}, 5)", "{{{{config}}}}zq{n}",
)  # fmt: skip
STEPS = (
    "..", "%2e%2e", ".%2e", "%252e%252e", "..%2f", "..%5c", "..\\", "%c0%ae%c0%ae", "....//", "%2e%2e%2f", "..;", "",
    ".", "%00", "..%00", "%u002e%u002e", "\uff0e\uff0e", "~", "-", "*",
)  # fmt: skip
TARGETS = ("etc/passwd", "pyproject.toml", "secret.txt", "icl-by-gd.json", "catalogue/server.py", ".git/config", "lock",
           "windows/win.ini", "proc/self/environ", "entries/icl-by-gd.toml", "templates/base.html")  # fmt: skip
ROOTS = ("", "static/", "code/", "papers/", "mixers/", "runs/", "feeds/", "api/papers/", "compare/", "static/vendor/",
         "leaderboards/", "nope/", "code/mixers/")  # fmt: skip
PLACES = (
    "/?q={}", "/?family={}", "/?sort={}", "/?{}=1", "/?year={}&q=x", "/papers/{}", "/mixers/{}", "/tasks/{}",
    "/code/{}", "/compare?mixers={}", "/compare/{}", "/leaderboards/{}", "/api/search?q={}", "/api/papers/{}",
    "/runs/{}", "/runs/{}/part", "/runs/{}/figure.svg", "/feeds/{}.xml", "/static/{}", "/{}", "/papers/icl-by-gd?{}",
    "/feed.xml?{}",
)  # fmt: skip
METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "GET\x00",
    "",
    "Ω",
)
HOSTS = (
    "evil.example", "127.0.0.1", "localhost.evil.example:8765", "127.0.0.1:8765@evil", "[::1", "", "a" * 400, "0:8765",
    "127.1:8765", "2130706433:8765", "<zq>",
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "secret.txt").write_text(SECRET, encoding="utf-8")
    folders = write_catalogue(folder)
    (folders[1] / "secret.txt").write_text(SECRET, encoding="utf-8")
    made = make_site(folders, folder / "runs", begun_by_nobody)
    for path in ("/", "/papers/icl-by-gd"):
        made.ask(path)
    yield made
    made.jobs.close()


def begun_by_nobody(*asked: object) -> list[str]:
    raise AssertionError(f"a process would have been begun for {asked}")


class Ill:
    """A generator of requests; the same seed makes the same."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def script(self, n: int) -> str:
        return self.dice.choice(SCRIPTS).format(n=n)

    def target(self, n: int) -> bytes:
        return self.dice.choice((self.traversal, self.field, self.field, self.encoding, self.oversized))(n)

    def traversal(self, n: int) -> bytes:
        steps = "/".join(self.dice.choice(STEPS) for _ in range(self.dice.randint(1, 8)))
        path = f"/{self.dice.choice(ROOTS)}{steps}/{self.dice.choice(TARGETS)}"
        return path.encode("utf-8" if self.dice.random() < 0.5 else "latin-1", errors="replace")

    def field(self, n: int) -> bytes:
        text = self.script(n)
        said = quote(text, safe="") if self.dice.random() < 0.8 else quote(quote(text, safe=""), safe="")
        return self.dice.choice(PLACES).format(said).encode()

    def encoding(self, n: int) -> bytes:
        octets = bytes(self.dice.randrange(256) for _ in range(self.dice.randint(1, 40)))
        said = quote_from_bytes(octets, safe="") if self.dice.random() < 0.6 else "%" + octets.hex("%")
        if self.dice.random() < 0.2:
            said = said.replace("%", "%%", 1)
        return self.dice.choice(PLACES).format(said).encode()

    def oversized(self, n: int) -> bytes:
        long = self.dice.choice(("a", "%41", "/", "../", "&q=", "%ff", "?")) * self.dice.choice((600, 3000, 20000))
        return self.dice.choice(PLACES).format(long).encode()

    def headers(self, n: int) -> list[tuple[bytes, bytes]]:
        names = ("hx-request", "hx-target", "if-none-match", "accept-encoding", "referer", "cookie", "x-forwarded-host",
                 "origin", "range", "content-type", "transfer-encoding", "x-" + "h" * 50)  # fmt: skip
        values = ("true", self.script(n), "\xff" * 20, "gzip;q=banana", "bytes=0-1,5-", "*", ",,,;;", "a" * 5000)
        return [
            (self.dice.choice(names).encode(), self.dice.choice(values).encode("utf-8", errors="replace"))
            for _ in range(self.dice.randint(0, 4))
        ]


def ask(site: Site, ill: Ill, n: int) -> tuple[bytes, Reply]:
    dice = ill.dice
    target, headers = ill.target(n), ill.headers(n)
    kind = dice.random()
    if kind < 0.70:
        return target, site.ask(target, headers=headers)
    if kind < 0.80:
        return target, site.ask(target, dice.choice(METHODS), headers=headers)
    if kind < 0.87:
        host = dice.choice(HOSTS).encode("utf-8")
        return target, site.ask(target, host=host if dice.random() < 0.9 else None, headers=headers)
    if kind < 0.94:
        token = site.app.token if dice.random() < 0.7 else ill.script(n)
        fields = {"paper": dice.choice(("icl-by-gd", ill.script(n), "../mine.py")), "claim": ill.script(n)}
        place = dice.choice(("/runs", "/runs/nope/stop", f"/runs/{quote(ill.script(n), safe='')}/stop"))
        return place.encode(), site.post(place, headers=headers, token=token, **fields)
    junk = [bytes(dice.randrange(256) for _ in range(dice.choice((0, 10, 3000)))) for _ in range(dice.randint(1, 4))]
    form = (b"content-type", b"application/x-www-form-urlencoded")
    return b"/runs", site.ask("/runs", "POST", headers=[form, *headers], chunks=junk)


def test_two_thousand_hostile_requests(site: Site) -> None:
    ill, told = Ill(20260101), {}
    for n in range(NUM_REQUESTS):
        target, reply = ask(site, ill, n)
        told[reply.status] = told.get(reply.status, 0) + 1
        assert reply.status < 500, target
        text = reply.body.decode("utf-8", errors="replace") if "content-encoding" not in reply.headers else ""
        assert not [secret for secret in SECRETS if secret in text and not target.startswith(b"/code/")], target
        assert reply.headers["x-content-type-options"] == "nosniff"
        if reply.headers.get("content-type", "").startswith(("text/html", "application/atom")):
            assert not echoed(text), (target, text[:2000])
        shown = reply.headers.pop("hx-replace-url", "")
        assert re.fullmatch(r"[\w%=&?/+.~-]*", shown), shown
        assert "zq" not in str(reply.headers), target
    # It tried what it was to try: much is not found, some is refused for each reason.
    assert told[404] > 300
    assert told[200] > 200
    assert all(told.get(status, 0) > 10 for status in (400, 403, 405, 414, 421)), told
    assert site.jobs.all() == []
    assert site.ask("/", host=HOST.encode()).status == 200


def echoed(text: str) -> bool:
    """Whether a page holds a mark in a tag of its own, outside the quotes of an attribute's value, or in a script."""
    unquoted = re.sub(r'="[^"<>]*"', "", text)
    return bool(re.search(r"<[^>]*zq\d|<(script|!--)[^<]*zq\d", unquoted))


@pytest.mark.parametrize("script", [one for one in SCRIPTS if "<" in one])
def test_an_unescaped_echo_would_be_seen(script: str) -> None:
    assert echoed(f"<p>{script.format(n=7)}</p>")
    assert echoed(f'<input value="{script.format(n=7)}">')
    assert not echoed(f"<p>{escape(script.format(n=7))}</p>")
    assert not echoed(f'<input value="{escape(script.format(n=7))}">')
