"""`contexture serve` as a process: a claim runs to its end, one is stopped, the record of a third survives kill -9."""

import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from contexture.catalogue.jobs import Jobs
from contexture.catalogue.processes import birth
from contexture.cli import main
from serve_toys import Served, serving, until

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as one:
        yield one


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
