"""A small catalogue, requests to its application without a server between, and its server as a process."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import httpx

from contexture.catalogue.guard import Guard
from contexture.catalogue.jobs import Command, Jobs
from contexture.catalogue.library import Library, load_library
from contexture.catalogue.server import application
from contexture.store.results import read_result, write_result

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1:8765"
PUBLISHED = ("construction", "trained-loss")
WORDS = "It says of words that there have to be at least fifty in a summary and so it goes on about a mechanism "


def entry(title: str, *, family: str, year: int | None, related: Sequence[str], mixers: Sequence[str] = ()) -> str:
    fields: dict[str, Any] = {
        "title": title,
        "authors": ["Ada <Lovelace> & Sons", "others"],
        "year": year,
        "family": family,
        "sentence": "Layers of linear attention take <gradient> steps & recall.",
        "summary": WORDS * 3 + "<i>to its end</i>.",
        "refutation": "A layer that takes no step.",
        "mixers": list(mixers),
        "tasks": ["mqar"],
        "learners": [],
        "related": list(related),
    }
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items() if value is not None)


def write_catalogue(folder: Path) -> tuple[Path, Path]:
    """Folders of entries and of results, with one measured paper, one built, one planned."""
    entries, results = folder / "entries", folder / "results"
    entries.mkdir()
    results.mkdir()
    gd = "Transformers learn in-context by gradient descent"
    texts = {
        "icl-by-gd": entry(gd, family="in-context-learning", year=2022, related=["toy-rule", "toy-plan"]),
        "toy-rule": entry("A <Rule> & its \"Delta\"", family="mixers", year=2021, related=["icl-by-gd", "toy-plan"],
                          mixers=["delta-rule"]),
        "toy-plan": entry("Plans", family="surveys", year=None, related=["icl-by-gd", "toy-rule"]),
    }  # fmt: skip
    for key, text in texts.items():
        (entries / f"{key}.toml").write_text(text, encoding="utf-8")
    document = read_result(ROOT / "results" / "icl-by-gd.json")
    document["claims"] = [claim for claim in document["claims"] if claim["name"] in PUBLISHED]
    write_result(results / "icl-by-gd.json", document)
    return entries, results


def republish(results: Path, *, at: str, **changed: Any) -> None:
    """Publish the first claim anew with other values."""
    document = read_result(results / "icl-by-gd.json")
    document["claims"][0] |= changed
    document["claims"][0]["measured_by"]["at"] = at
    write_result(results / "icl-by-gd.json", document)


def load(folders: tuple[Path, Path]) -> Library:
    return load_library(folders[1], entries=folders[0])


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Headers = Iterable[tuple[bytes, bytes]]


@dataclass
class Site:
    """The application of a small catalogue, asked directly."""

    app: Guard
    jobs: Jobs
    library: Library

    def ask(
        self,
        target: str | bytes,
        method: str = "GET",
        *,
        headers: Headers = (),
        host: bytes | None = HOST.encode(),
        chunks: Sequence[bytes] = (b"",),
    ) -> Reply:
        """What is answered to a request as a server of HTTP/1.1 would hand it over."""
        target = target.encode("latin-1") if isinstance(target, str) else target
        raw, _, query = target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw.decode("latin-1")),
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": [*([(b"host", host)] if host is not None else []), *headers],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8765),
        }
        sent: list[Any] = []
        rest = list(chunks)

        async def receive() -> dict[str, Any]:
            body = rest.pop(0) if rest else b""
            return {"type": "http.request", "body": body, "more_body": bool(rest)}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        start, *parts = sent
        said = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
        return Reply(start["status"], said, b"".join(part.get("body", b"") for part in parts))

    def post(self, path: str, *, headers: Headers = (), token: str | None = None, **fields: str) -> Reply:
        """A form, sent as a page of the server would."""
        form = urlencode({"token": self.app.token if token is None else token, **fields}).encode()
        kind = (b"content-type", b"application/x-www-form-urlencoded")
        length = (b"content-length", str(len(form)).encode())
        return self.ask(path, "POST", headers=[kind, length, *headers], chunks=[form])


def make_site(folders: tuple[Path, Path], runs: Path, command: Command) -> Site:
    jobs = Jobs(runs, command, grace=5)
    library = load(folders)
    return Site(application(lambda: library, jobs=jobs, port=8765), jobs, library)


# The command with entries of a small catalogue in place of the package's own.
COMMAND = """
import functools, sys
from pathlib import Path
from contexture.catalogue import library
from contexture.cli import main
library.load_library = functools.partial(library.load_library, entries=Path(sys.argv[1]))
sys.exit(main(["serve", *sys.argv[2:]]))
"""


@dataclass
class Served:
    process: "subprocess.Popen[bytes]"
    client: httpx.Client
    runs: Path

    def token(self) -> str:
        found = re.search(r'name="token" value="([\w-]+)"', self.client.get("/papers/icl-by-gd").text)
        assert found is not None
        return found[1]

    def begin(self, claim: str) -> str:
        form = {"token": self.token(), "paper": "icl-by-gd", "claim": claim}
        reply = self.client.post("/runs", data=form, follow_redirects=False)
        assert reply.status_code == 303
        return str(reply.headers["location"])

    def state(self, address: str) -> str:
        found = re.match(r'<section class="run (\w+)"', self.client.get(f"{address}/part").text)
        assert found is not None
        return found[1]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """`contexture serve` as a process of its own, with a small catalogue of which nothing is measured."""
    entries, results = write_catalogue(folder)
    (results / "icl-by-gd.json").unlink()  # its figures are drawn elsewhere
    port = free_port()
    options = ["--port", str(port), "--results", str(results), "--run-dir", str(folder / "runs"), "--no-browser"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(entries), *options],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            until(lambda: answers(client), seconds=60)
            yield Served(process, client, folder / "runs")
    finally:
        process.kill()
        process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/about").status_code == 200
    except httpx.TransportError:
        return False


def until(true: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


TAG = re.compile(r"<[a-zA-Z/!]")
