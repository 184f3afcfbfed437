"""Runs of claims asked for on a page: one at a time, each with a record that outlives a reload and a kill -9.

    FOLDER/lock                 held by the process that may start runs
    FOLDER/ID.jsonl             a run's record (`store.record`); `catalogue.job` says what its lines are
    FOLDER/work/                models and results of the run that is on; emptied before and after it

A run is acknowledged once its first line is durable, stopped by Ctrl-C for its process group and killed if it does not
heed it. A server that dies takes the other end of the run's input with it, so the run ends; the next opening marks the
run as interrupted and ends its process group, should anything of it be left.
"""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from contexture.catalogue.job import Job, State
from contexture.catalogue.processes import begin, birth, close_pipes, end_group, interrupt, wait_unreaped
from contexture.errors import ContextureError, InputError
from contexture.store import json_text
from contexture.store.atomic import make_folder, try_lock
from contexture.store.clock import moment
from contexture.store.record import RunRecord, read_record
from contexture.store.report import Report, to_stderr

GRACE = 6.0
LONGEST = 3600.0
MOST_KEPT = 100
LONGEST_LINE = 4_000_000
LONGEST_SAID = 500
TOLD = ("measuring", "training", "step", "measured")
"""Events that are the process's own to tell."""
_ID = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{4}")

Command = Callable[[str, str, str, Path], Sequence[str]]
"""The command line that measures a claim: from a paper's key, the claim's name, a scale and a folder to work in."""


class Busy(ContextureError):
    """A run is on already: `job` is its id, "" if another process holds the folder."""

    def __init__(self, job: str) -> None:
        super().__init__(f"the run {job} is on: stop it, or wait for its end" if job else "another server runs claims")
        self.job = job


class Jobs:
    """The runs of a folder. A context manager; opening it settles what a killed server left.

    command: what measures a claim. grace: seconds between Ctrl-C and the kill. longest: seconds after which a run is
    stopped. Where another process holds the folder, its runs can be read but none can be started. `revision` counts
    beginnings and ends.
    """

    def __init__(
        self,
        folder: str | Path,
        command: Command,
        *,
        grace: float = GRACE,
        longest: float = LONGEST,
        report: Report = to_stderr,
    ) -> None:
        self.folder, self.command, self.grace, self.longest = Path(folder).resolve(), command, grace, longest
        self._report = report
        self._guard = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self.revision = 0
        self._live: _Live | None = None
        make_folder(self.folder)
        self._handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        self.may_start = try_lock(self._handle)
        for path in sorted(self.folder.glob("*.jsonl")):
            if _ID.fullmatch(path.stem):
                self._open(path)
        if self.may_start:
            self._drop_oldest()

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End what is running, wait for it, and let another process have the folder."""
        with self._guard:
            live = self._live
        if live is not None:
            live.stop()
            live.wait(self.grace + 10)
        os.close(self._handle)

    def all(self) -> list[Job]:
        """Every run, the latest first, as it stands now."""
        with self._guard:
            return [job.snapshot() for _, job in sorted(self._jobs.items(), reverse=True)]

    def get(self, id: str) -> Job | None:
        """The run of an id as it stands now, None if there is none."""
        with self._guard:
            job = self._jobs.get(id)
            return job.snapshot() if job else None

    def latest(self, paper: str, claim: str) -> Job | None:
        """The latest run of a claim as it stands now, None if there is none."""
        with self._guard:
            found = [job.id for job in self._jobs.values() if (job.paper, job.claim) == (paper, claim)]
            return self.get(max(found)) if found else None

    def running(self) -> Job | None:
        """The run that is on."""
        with self._guard:
            return self.get(self._live.job.id) if self._live else None

    def start(self, paper: str, claim: str, *, scale: str = "smoke") -> Job:
        """Begin to measure a claim; on return the run is durably recorded. Raises Busy while another is on.

        The names are the caller's to check: they are handed to the command as they are.
        """
        with self._guard:
            if self._live is not None or not self.may_start:
                raise Busy(self._live.job.id if self._live else "")
            now = datetime.now(UTC)
            job = Job(f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}")
            work = self.folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            asked = {"event": "asked", "paper": paper, "claim": claim, "scale": scale, "at": moment(now)}
            record = self._acknowledged(job.id, asked)
            job.take(asked)
            live = _Live(job, record, self._guard, grace=self.grace, longest=self.longest, report=self._report)
            self._jobs[job.id], self._live = job, live
            self.revision += 1
            live.begin(self.command(paper, claim, scale, work), done=self._ended)
            return job.snapshot()

    def stop(self, id: str) -> bool:
        """Ask the run of that id to end; False if it is not on."""
        with self._guard:
            if self._live is None or self._live.job.id != id:
                return False
            self._live.stop()
            self.revision += 1
            return True

    def wait(self, seconds: float) -> None:
        """Return when nothing runs any more, or after that many seconds."""
        with self._guard:
            live = self._live
        if live is not None:
            live.wait(seconds)

    def _acknowledged(self, id: str, asked: Mapping[str, Any]) -> RunRecord:
        """A new record with its first line durable; ContextureError, with no file left, if the disk refuses it."""
        path = self._path(id)
        try:
            record = RunRecord(path, report=self._report)
            record.append(asked)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise ContextureError(f"the run cannot be recorded in {self.folder}: {error.strerror or error}") from error
        return record

    def _path(self, id: str) -> Path:
        return self.folder / f"{id}.jsonl"

    def _ended(self) -> None:
        with self._guard:
            self._live = None
            self.revision += 1
            shutil.rmtree(self.folder / "work", ignore_errors=True)
            self._drop_oldest()

    def _open(self, path: Path) -> None:
        """Read a record back; a run that has no end was orphaned: it is ended and marked as interrupted."""
        try:
            job = Job.from_record(path.stem, read_record(path))
        except (InputError, KeyError) as error:
            self._report(f"{path}: left out, as it cannot be read ({error})")
            return
        if not job.paper:
            # Killed before its first line was durable: nobody was told that it had begun.
            if self.may_start:
                path.unlink()
            return
        if not job.over and self.may_start:
            if job.pid is not None and job.born and birth(job.pid) == job.born:
                end_group(job.pid)
            ended = {"event": "ended", "state": "interrupted", "status": None, "at": moment()}
            with RunRecord(path, report=self._report) as record:
                record.append(ended)
            job.take(ended)
        self._jobs[job.id] = job

    def _drop_oldest(self) -> None:
        for id in sorted(self._jobs)[:-MOST_KEPT]:
            del self._jobs[id]
            with contextlib.suppress(OSError):
                self._path(id).unlink()


class _Live:
    """The run that is on: its process, the threads that read from it, and its record."""

    def __init__(
        self, job: Job, record: RunRecord, guard: threading.RLock, *, grace: float, longest: float, report: Report
    ) -> None:
        self.job, self.record, self.guard, self.grace, self.longest = job, record, guard, grace, longest
        self.report = report
        self.process: subprocess.Popen[bytes] | None = None
        self.timers: list[threading.Timer] = []
        self.stopping = self.gone = False
        self.over = threading.Event()

    def begin(self, command: Sequence[str], *, done: Callable[[], None]) -> None:
        """Start the process and the threads that follow it."""
        try:
            self.process = begin(command)
        except OSError as error:
            self.note({"event": "said", "text": f"{command[0]} cannot be started: {error.strerror or error}"})
            self._end("failed", None, done)
            return
        self.note({"event": "started", "pid": self.process.pid, "born": birth(self.process.pid)})
        self._later(self.longest, self.stop)
        threading.Thread(target=self._follow, args=(self.process, done), name=self.job.id, daemon=True).start()

    def note(self, line: Mapping[str, Any], *, durable: bool = True) -> None:
        """Record an event and show it; a disk that takes no more is reported, and the run goes on."""
        with self.guard:
            try:
                self.record.append(line, durable=durable)
            except OSError as error:
                self.report(f"{self.record.path} cannot be written: {error.strerror or error}")
            self.job.take(line)

    def stop(self) -> None:
        """Interrupt the process; kill its group if it is still there when the grace is over."""
        with self.guard:
            if self.process is None or self.stopping or self.gone:
                return
            self.stopping = True
            self.note({"event": "stopping"})
            interrupt(self.process)
            self._later(self.grace, self._kill)

    def wait(self, seconds: float) -> None:
        """Wait for the end."""
        self.over.wait(seconds)

    def _kill(self) -> None:
        with self.guard:
            if self.process is not None and not self.gone:
                end_group(self.process.pid)

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, do)
        timer.daemon = True
        self.timers.append(timer)
        timer.start()

    def _follow(self, process: "subprocess.Popen[bytes]", done: Callable[[], None]) -> None:
        """Record what the process prints until it ends, and let nothing that it began outlive it."""
        hearing = [
            threading.Thread(target=hear, args=(stream,), daemon=True)
            for hear, stream in ((self._listen, process.stdout), (self._hear, process.stderr))
        ]
        for thread in hearing:
            thread.start()
        wait_unreaped(process)
        with self.guard:
            end_group(process.pid)
            status = process.wait()
            self.gone = True
        for thread in hearing:
            thread.join()
        close_pipes(process)
        state: State = "done" if self.job.measured is not None else "stopped" if self.stopping else "failed"
        self._end(state, status, done)

    def _listen(self, stream: IO[bytes]) -> None:
        for text in _lines(stream):
            try:
                line = json_text.loads(text)
                # Only what the process is to tell: its beginning and its end are this process's to record.
                if line["event"] in TOLD:
                    self.note(line, durable=line["event"] == "measured")
            except (ValueError, TypeError, KeyError, AttributeError):
                self._say(text)

    def _hear(self, stream: IO[bytes]) -> None:
        for text in _lines(stream):
            self._say(text)

    def _say(self, text: bytes) -> None:
        said = text.decode(errors="replace").rstrip()[:LONGEST_SAID]
        if said:
            self.note({"event": "said", "text": said}, durable=False)

    def _end(self, state: State, status: int | None, done: Callable[[], None]) -> None:
        for timer in self.timers:
            timer.cancel()
        self.note({"event": "ended", "state": state, "status": status, "at": moment()})
        with contextlib.suppress(OSError):
            self.record.close()
        done()
        self.over.set()


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of an unbuffered pipe; what is longer than LONGEST_LINE is cut."""
    rest = b""
    while chunk := stream.read(65536):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        rest = rest[:LONGEST_LINE]
    if rest:
        yield rest
