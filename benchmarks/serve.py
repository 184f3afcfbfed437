"""How many requests `contexture serve` answers in a second, how soon, and whether its memory grows.

Run: python benchmarks/serve.py [--seconds S] [--connections N] [-o results/benchmarks/serve.json]

The server is a process of its own; this one holds N connections open and sends the next request of each as soon as the
last is answered. Pages are asked for again and again, as browsers do; every search is for words not asked for before.
Beside the clock's times stand those of the server's processor, which other work on the machine does not stretch. Reads
memory and processor time from /proc, so it runs on Linux.
"""

import argparse
import asyncio
import http.client
import itertools
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contexture.catalogue.library import load_library
from contexture.catalogue.search import texts, words
from contexture.store.environment import environment
from contexture.store.results import write_result

WARM_UP = 1.0
ROUNDS = 5
PAGES = {"front page": "/", "paper's page": "/papers/icl-by-gd", "mixer's page": "/mixers/delta-rule"}


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send a request, read its answer whole; returns the answer's bytes."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 304 "):
        return len(head)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"the server answered {head[:60]!r} to {request[:80]!r}")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return len(head) + length


async def load(port: int, requests: Iterator[bytes], *, connections: int, seconds: float) -> dict[str, Any]:
    """Requests in a second, and the latencies that half and 99 of 100 stay below, in milliseconds."""
    latencies: list[float] = []
    sizes: list[int] = []
    begun = time.perf_counter()
    end = begun + seconds

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**21)
        sent = begun
        while sent < end and (asked := next(requests, None)) is not None:  # no search is asked twice
            sent = time.perf_counter()
            sizes.append(await exchange(reader, writer, asked))
            latencies.append(time.perf_counter() - sent)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(ask() for _ in range(connections)))
    latencies.sort()
    return {
        "requests": len(latencies),
        "requests per second": round(len(latencies) / (time.perf_counter() - begun), 1),
        "p50 ms": round(1000 * latencies[len(latencies) // 2], 2),
        "p99 ms": round(1000 * latencies[len(latencies) * 99 // 100], 2),
        "bytes per answer": round(sum(sizes) / len(sizes)),
    }


def request(path: str, port: int, *more: str) -> bytes:
    """A request as a browser writes it, as far as the server looks."""
    return "\r\n".join((f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *more, "", "")).encode()


def searches(port: int, *more: str) -> Iterator[bytes]:
    """Searches for two words of the catalogue, none twice, some for the beginnings of words."""
    dice = random.Random(0)
    found = {
        word for record in load_library().papers.values() for text in texts(record).values() for word in words(text)
    }
    vocabulary = sorted(word for word in found if len(word) > 3)
    pairs = [(a, b) for a, b in itertools.product(vocabulary, vocabulary[::3]) if a != b]
    dice.shuffle(pairs)
    for a, b in pairs:
        yield request(f"/?q={a}+{b[: dice.randint(2, len(b))]}", port, *more)


def one_word(port: int) -> Iterator[bytes]:
    """What is sent as one types the words of the catalogue: every beginning of each, of which many papers have some."""
    dice = random.Random(1)
    found = {word for record in load_library().papers.values() for word in words(record.entry.summary)}
    asked = {word[:length] for word in found for length in range(2, len(word) + 1)}
    order = sorted(asked)
    dice.shuffle(order)
    for word in order:
        yield request(f"/?q={word}", port, "HX-Request: true")


def memory(pid: int) -> float:
    """The memory that a process holds, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def processor(pid: int) -> float:
    """The processor time that a process has taken, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(pid: int, port: int, requests: Iterator[bytes], options: argparse.Namespace) -> dict[str, Any]:
    """Load in several rounds, with the server's memory after each."""
    asyncio.run(load(port, requests, connections=options.connections, seconds=WARM_UP))
    before, took = memory(pid), processor(pid)
    parts = []
    for _ in range(ROUNDS):
        part = asyncio.run(load(port, requests, connections=options.connections, seconds=options.seconds / ROUNDS))
        parts.append({**part, "memory MiB": round(memory(pid), 1)})
    count = sum(part["requests"] for part in parts)
    return {
        "requests": count,
        "requests per second": round(sum(part["requests per second"] for part in parts) / ROUNDS, 1),
        "p50 ms": sorted(part["p50 ms"] for part in parts)[ROUNDS // 2],
        "p99 ms": max(part["p99 ms"] for part in parts),
        "server's processor ms per request": round(1000 * (processor(pid) - took) / count, 4),
        "bytes per answer": parts[-1]["bytes per answer"],
        "memory growth MiB": round(memory(pid) - before, 1),
        "rounds": parts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each kind of request")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("-o", "--output", metavar="FILE", help="write the result as JSON")
    options = parser.parse_args()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "contexture.cli", "serve", "--port", str(port), "--no-browser"]
        server = subprocess.Popen([*command, "--run-dir", folder])
        try:
            wait_for(port)
            known = ask_once(port, PAGES["paper's page"])
            kinds = {
                **{name: itertools.repeat(request(path, port)) for name, path in PAGES.items()},
                "front page, compressed": itertools.repeat(request("/", port, "Accept-Encoding: gzip")),
                "paper's page, not modified": itertools.repeat(
                    request(PAGES["paper's page"], port, f"If-None-Match: {known}")
                ),
                "search for two words": searches(port),
                "search as one types": one_word(port),
                "search of the read API": (one.replace(b"/?q", b"/api/search?q") for one in searches(port)),
            }
            found_of = {}
            for name, requests in kinds.items():
                found_of[name] = measure(server.pid, port, requests, options)
                shown = {key: value for key, value in found_of[name].items() if key != "rounds"}
                print(f"{name}: {shown}", flush=True)
        finally:
            server.terminate()
            server.wait()
    if options.output:
        about = {"command": f"python benchmarks/serve.py --seconds {options.seconds:g} -o {options.output}"}
        settings = {
            "seconds": options.seconds,
            "connections": options.connections,
            "load at the end": os.getloadavg()[0],
        }
        write_result(options.output, {**about, "settings": settings, "kinds": found_of, "environment": environment()})


def wait_for(port: int) -> None:
    """Return once the server has answered every page of PAGES."""
    end = time.monotonic() + 120
    for path in PAGES.values():
        while True:
            try:
                ask_once(port, path)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


def ask_once(port: int, path: str) -> str:
    """Ask for a page; returns its entity tag."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.read()
        return reply.headers["etag"]
    finally:
        connection.close()


if __name__ == "__main__":
    main()
