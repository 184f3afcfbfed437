"""`contexture serve` as a process: a claim runs to its end, one is stopped, the record of a third survives kill -9."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from contexture.catalogue.jobs import Jobs
from contexture.catalogue.processes import birth
from contexture.cli import main
from serve_toys import write_catalogue

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
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


@posix
def test_a_claim_runs_another_is_stopped_and_a_killed_server_leaves_a_record(served: Served) -> None:
    measured = served.begin("construction")
    assert served.state(measured) == "running"
    assert served.client.get("/papers/icl-by-gd").text.count("Run it here") == 7
    until(lambda: served.state(measured) == "done", seconds=90)
    page = served.client.get(measured).text
    assert "<dt>verdict</dt><dd><strong>held</strong>" in page
    assert served.client.get(f"{measured}/figure.svg").text.startswith("<?xml")

    stopped = served.begin("trained-loss")
    form = {"token": served.token()}
    assert served.client.post(f"{stopped}/stop", data=form, follow_redirects=False).status_code == 303
    until(lambda: served.state(stopped) == "stopped", seconds=30)

    begun = served.begin("trained-depth")
    (job,) = [path for path in served.runs.glob("*.jsonl") if path.stem == begun.rpartition("/")[2]]
    served.process.send_signal(signal.SIGKILL)
    served.process.wait()
    with Jobs(served.runs, lambda *asked: []) as jobs:
        assert [(one.claim, one.state) for one in jobs.all()] == [
            ("trained-depth", "interrupted"),
            ("trained-loss", "stopped"),
            ("construction", "done"),
        ]
        held = jobs.get(job.stem)
        assert held is not None
        assert held.pid is not None
        pid, born = held.pid, held.born
        until(lambda: birth(pid) != born, seconds=30)


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1]), "--no-browser"]) == 2
    assert "name another" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_what_is_no_port_is_said(port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--port", port])
    assert ended.value.code == 2


def test_what_is_not_installed_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--no-browser"]) == 2
    assert "needs uvicorn: pip install 'contexture[web]'" in capsys.readouterr().err
