"""The record of a run: one JSON object a line, only ever appended to, and no acknowledged line lost at kill -9.

A line counts once `append` has returned: it is written and fsynced by then. What a kill cuts short is the last line,
which lacks its newline; reopening cuts it off and says so. A run that resumes from step s appends a line
{"event": "resumed", "step": s}: earlier lines with a greater step stay in the file, and `read_record` leaves them out.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from contexture.errors import InputError
from contexture.store import json_text
from contexture.store.atomic import DISK, Disk, make_folder, try_lock
from contexture.store.report import Report, to_stderr

RESUMED = "resumed"
_BINARY = getattr(os, "O_BINARY", 0)


class RunRecord:
    """A run's record, opened for writing by one process at a time. A context manager.

    every: seconds for which lines appended with durable=False may wait in memory for a common fsync.
    Raises InputError if another process has the record open or a line before the last is damaged.
    """

    def __init__(self, path: str | Path, *, every: float = 1.0, disk: Disk = DISK, report: Report = to_stderr) -> None:
        self.path = Path(path)
        self.every = every
        self._disk = disk
        self._waiting: list[bytes] = []
        self._synced = time.monotonic()
        make_folder(self.path.parent, disk=disk)
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
        try:
            self._open(report)
        except BaseException:
            os.close(self._handle)
            raise

    def append(self, line: Mapping[str, Any], *, durable: bool = True) -> None:
        """Append one line; on return it survives a kill, unless durable=False lets it wait up to `every` seconds.

        Waiting lines are written, in order, with the next durable one. Raises InputError for what JSON cannot hold.
        """
        text = json_text.dumps(line, what="a line of the run record")
        self._waiting.append(text.encode() + b"\n")
        if durable or time.monotonic() - self._synced >= self.every:
            self.flush()

    def resumed(self, step: int) -> None:
        """Mark every earlier line beyond `step` as superseded: the run goes on from there."""
        self.append({"event": RESUMED, "step": step})

    def flush(self) -> None:
        """Make every line appended so far durable. After an OSError the lines wait on, and the file is as before."""
        if self._waiting:
            data = b"".join(self._waiting)
            os.lseek(self._handle, self._end, os.SEEK_SET)
            try:
                self._disk.write(self._handle, data)
                self._disk.fsync(self._handle)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._disk.truncate(self._handle, self._end)
                raise
            self._end += len(data)
            self._waiting.clear()
        self._synced = time.monotonic()

    def close(self) -> None:
        """Flush and close; the record can then be opened again."""
        try:
            self.flush()
        finally:
            os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self, report: Report) -> None:
        """Lock the file, check its lines, and cut a torn end."""
        if not try_lock(self._handle):
            raise InputError(f"{self.path} is being written by another process: end that one, or use another folder")
        data = self.path.read_bytes()
        lines, torn = _parse(self.path, data)
        self._end = len(data) - torn
        if torn:
            report(f"{self.path}: the last line was cut short by a crash; its {torn} bytes are dropped")
            self._disk.truncate(self._handle, self._end)
            self._disk.fsync(self._handle)
        if not lines:
            self._disk.fsync_folder(self.path.parent)


def read_record(path: str | Path, *, superseded: bool = False) -> list[dict[str, Any]]:
    """The lines of a run record, without those that a later resume superseded (all lines if `superseded`).

    A torn last line is left out, as it was never acknowledged. Raises InputError for a missing file and for a damaged
    line, with its number.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the run record {path} cannot be read: {error.strerror or error}") from error
    lines, _ = _parse(path, data)
    if superseded:
        return lines
    history: list[dict[str, Any]] = []
    for line in lines:
        if line.get("event") == RESUMED:
            history = [earlier for earlier in history if earlier.get("step", 0) <= line["step"]]
        history.append(line)
    return history


def _parse(path: Path, data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Every whole line, and the number of bytes of a torn one at the end."""
    *whole, rest = data.split(b"\n")
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(whole, start=1):
        try:
            line = json_text.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise InputError(f"{path}, line {number} is damaged: it is not a JSON object")
        lines.append(line)
    return lines, len(rest)
