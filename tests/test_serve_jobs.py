import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from contexture.catalogue.job import MOST_POINTS, Job, Training
from contexture.catalogue.jobs import Busy, Jobs
from contexture.catalogue.processes import birth
from contexture.errors import ContextureError
from contexture.store.record import read_record

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX's")

TELLS = """
import json, sys
def tell(**line): print(json.dumps(line), flush=True)
tell(event="measuring", claim="c", sentence="It is so.", done=0, of=1)
tell(event="training", step=0, steps=2)
tell(event="step", step=1, steps=2, loss=0.5)
tell(event="step", step=2, steps=2, loss=0.25)
tell(event="ended", state="done", status=0, at="a lie")
print("not json", flush=True)
print("a warning <b>", file=sys.stderr, flush=True)
tell(event="measured", claim={"name": "c", "value": 1.5}, figure="<svg/>")
"""
WAITS = "import time; print('up', flush=True); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
BEGETS = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print('child', child.pid, flush=True)"
)


def running(code: str) -> Callable[[str, str, str, Path], Sequence[str]]:
    return lambda paper, claim, scale, folder: [sys.executable, "-c", code]


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def said(jobs: Jobs, id: str) -> list[str]:
    job = jobs.get(id)
    assert job is not None
    return job.said


def test_a_run_tells_its_curve_its_result_and_what_it_said(tmp_path: Path) -> None:
    with Jobs(tmp_path, running(TELLS)) as jobs:
        begun = jobs.start("p", "c")
        assert (begun.paper, begun.claim, begun.scale, begun.state) == ("p", "c", "smoke", "running")
        jobs.wait(10)
        job = jobs.get(begun.id)
        assert job is not None
        assert (job.state, job.status, job.sentence) == ("done", 0, "It is so.")
        assert job.trainings == [Training(steps=2, done=2, curve=[(1, 0.5), (2, 0.25)])]
        assert (job.measured, job.figure) == ({"name": "c", "value": 1.5}, "<svg/>")
        assert sorted(job.said) == ["a warning <b>", "not json"]
        assert job.ended != "a lie"
        assert not (tmp_path / "work").exists()


def test_what_a_page_showed_is_there_after_a_restart(tmp_path: Path) -> None:
    with Jobs(tmp_path, running(TELLS)) as jobs:
        id = jobs.start("p", "c").id
        jobs.wait(10)
        before = jobs.get(id)
    with Jobs(tmp_path, running(TELLS)) as jobs:
        assert jobs.get(id) == before
        assert [job.id for job in jobs.all()] == [id]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Jobs(tmp_path, running(WAITS), grace=5) as jobs:
        first = jobs.start("p", "c")
        with pytest.raises(Busy, match="is on") as busy:
            jobs.start("p", "d")
        assert busy.value.job == first.id
        assert len(jobs.all()) == 1
        with Jobs(tmp_path, running(WAITS)) as others:
            assert not others.may_start
            with pytest.raises(Busy, match="another server"):
                others.start("p", "d")
            other = others.get(first.id)
            assert other is not None
            assert other.state == "running"


@posix
def test_a_stopped_run_ends_at_once_and_another_may_begin(tmp_path: Path) -> None:
    with Jobs(tmp_path, running(WAITS), grace=30) as jobs:
        id = jobs.start("p", "c").id
        until(lambda: said(jobs, id))
        assert jobs.stop(id)
        jobs.wait(10)
        job = jobs.get(id)
        assert job is not None
        assert job.state == "stopped"
        assert job.status not in (0, -signal.SIGKILL)
        assert not jobs.stop(id)
        assert jobs.start("p", "c").id != id


@posix
def test_a_run_can_be_stopped_where_ctrl_c_is_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Jobs(tmp_path, running(WAITS), grace=30) as jobs:
            id = jobs.start("p", "c").id
            until(lambda: said(jobs, id))
            jobs.stop(id)
            jobs.wait(10)
            job = jobs.get(id)
            assert job is not None
            assert (job.state, job.status) == ("stopped", -signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


@posix
def test_a_run_that_does_not_heed_is_killed(tmp_path: Path) -> None:
    with Jobs(tmp_path, running(DEAF), grace=0.2) as jobs:
        id = jobs.start("p", "c").id
        until(lambda: said(jobs, id))
        jobs.stop(id)
        jobs.wait(10)
        job = jobs.get(id)
        assert job is not None
        assert (job.state, job.status) == ("stopped", -signal.SIGKILL)


@posix
def test_a_run_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with Jobs(tmp_path, running(WAITS), longest=0.2) as jobs:
        id = jobs.start("p", "c").id
        jobs.wait(10)
        job = jobs.get(id)
        assert job is not None
        assert job.state == "stopped"


@posix
def test_nothing_that_a_run_began_outlives_it(tmp_path: Path) -> None:
    with Jobs(tmp_path, running(BEGETS)) as jobs:
        id = jobs.start("p", "c").id
        jobs.wait(10)
        (line,) = said(jobs, id)
        until(lambda: gone(int(line.split()[1])))
        job = jobs.get(id)
        assert job is not None
        assert job.state == "failed"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # One that nobody has reaped yet keeps its number but does nothing any more.
    state = Path(f"/proc/{pid}/stat")
    return state.is_file() and state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"


def test_a_command_that_cannot_be_started_fails_and_says_so(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-such-program")
    with Jobs(tmp_path, lambda *asked: [missing]) as jobs:
        job = jobs.start("p", "c")
        assert job.state == "failed"
        assert missing in job.said[0]
        assert jobs.running() is None


def test_a_run_that_cannot_be_recorded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with Jobs(tmp_path, running(TELLS)) as jobs:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ContextureError, match="No space left"):
            jobs.start("p", "c")
        assert jobs.all() == []
        assert list(tmp_path.glob("*.jsonl")) == []


SERVER = """
import sys, time
from contexture.catalogue.jobs import Jobs
jobs = Jobs(sys.argv[1], lambda *asked: [sys.executable, "-c", sys.argv[2]])
job = jobs.start("p", "c")
while not jobs.get(job.id).said:
    time.sleep(0.01)
print(job.id, jobs.get(job.id).pid, flush=True)
time.sleep(60)
"""


@posix
@pytest.mark.parametrize("code", [WAITS, DEAF], ids=["a run that heeds", "a run that does not"])
def test_a_killed_server_leaves_a_record_and_no_process(tmp_path: Path, code: str) -> None:
    command = [sys.executable, "-c", SERVER, str(tmp_path), code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        id, pid = server.stdout.readline().split()
        server.kill()
    assert birth(int(pid))
    with Jobs(tmp_path, running(TELLS)) as jobs:
        job = jobs.get(id)
        assert job is not None
        assert (job.paper, job.claim, job.state) == ("p", "c", "interrupted")
        until(lambda: gone(int(pid)))
        assert jobs.start("p", "c").state == "running"
    assert [line["event"] for line in read_record(tmp_path / f"{id}.jsonl")][-1] == "ended"


@posix
def test_another_process_of_the_same_number_is_left_alone(tmp_path: Path) -> None:
    id = "20260101-000000-000000-abcd"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as bystander:
        lines = [
            {"event": "asked", "paper": "p", "claim": "c", "scale": "smoke", "at": "2026-01-01T00:00:00Z"},
            {"event": "started", "pid": bystander.pid, "born": "another boot 17"},
        ]
        (tmp_path / f"{id}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        with Jobs(tmp_path, running(TELLS)) as jobs:
            job = jobs.get(id)
            assert job is not None
            assert job.state == "interrupted"
        assert bystander.poll() is None
        bystander.kill()


def test_a_run_whose_first_line_was_cut_short_never_was(tmp_path: Path) -> None:
    (tmp_path / "20260101-000000-000000-abcd.jsonl").write_text('{"event": "asked", "pap', encoding="utf-8")
    with Jobs(tmp_path, running(TELLS)) as jobs:
        assert jobs.all() == []
    assert list(tmp_path.glob("*.jsonl")) == []


def test_a_damaged_record_is_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "20260101-000000-000000-abcd.jsonl").write_text("nonsense\n", encoding="utf-8")
    reports: list[str] = []
    with Jobs(tmp_path, running(TELLS), report=reports.append) as jobs:
        assert jobs.all() == []
    assert "line 1 is damaged" in reports[0]


def test_a_long_curve_is_thinned_and_keeps_its_last_point() -> None:
    training = Training(steps=5000)
    for step in range(1, 5001):
        training.add(step, 1 / step)
    assert len(training.curve) <= MOST_POINTS
    assert training.curve[-1] == (5000, 1 / 5000)
    assert [step for step, _ in training.curve] == sorted({step for step, _ in training.curve})


def test_a_step_without_a_training_is_passed_over() -> None:
    job = Job("x")
    job.take({"event": "step", "step": 1, "steps": 2, "loss": 0.1})
    assert job.trainings == []
