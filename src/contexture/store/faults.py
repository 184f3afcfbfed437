"""A disk that refuses, or a process that dies, at one chosen call: how crash-safety is tested, here and by users.

    disk = FaultyDisk(at=7, fault="kill")        # SIGKILL during the eighth call that changes the disk
    train(..., disk=disk)

A write that is struck has put the first half of its bytes on the disk by then, as a torn write would.
"""

import errno
import os
import signal
from pathlib import Path
from typing import Literal

from contexture.store.atomic import Disk

Fault = Literal["refuse", "crash", "kill"]


class SimulatedCrash(BaseException):
    """Stands for the death of the process: no handler may survive it, and the disk takes no further call."""


class FaultyDisk(Disk):
    """A disk whose call number `at`, counted from 0, is struck by `fault`; `calls` lists the kinds of call made.

    "refuse": the call raises OSError (no space left), and later ones work again; "crash": it raises SimulatedCrash,
    and so does every later one, so that clean-up code is as powerless as after a kill; "kill": the process kills
    itself without warning. With at=None nothing is struck, and the calls are counted.
    """

    def __init__(self, *, at: int | None = None, fault: Fault = "refuse") -> None:
        self.at = at
        self.fault = fault
        self.calls: list[str] = []

    def write(self, handle: int, data: bytes) -> None:
        """Write all of `data`; struck, only its first half."""
        if self._due():
            super().write(handle, data[: len(data) // 2])
        self._call("write")
        super().write(handle, data)

    def fsync(self, handle: int) -> None:
        """Make the file durable, or be struck before."""
        self._call("fsync")
        super().fsync(handle)

    def fsync_folder(self, folder: Path) -> None:
        """Make the folder durable, or be struck before."""
        self._call("fsync_folder")
        super().fsync_folder(folder)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, or be struck before."""
        self._call("rename")
        super().rename(source, target)

    def truncate(self, handle: int, length: int) -> None:
        """Cut the file, or be struck before."""
        self._call("truncate")
        super().truncate(handle, length)

    def remove(self, path: Path) -> None:
        """Remove a file or folder, or be struck when its first entry is gone."""
        if self._due() and path.is_dir():
            for entry in sorted(path.iterdir())[:1]:
                entry.unlink()
        self._call("remove")
        super().remove(path)

    def _due(self) -> bool:
        return len(self.calls) == self.at

    def _call(self, kind: str) -> None:
        due = self._due()
        dead = self.fault == "crash" and self.at is not None and len(self.calls) > self.at
        self.calls.append(kind)
        if dead or (due and self.fault == "crash"):
            raise SimulatedCrash(f"at call {self.at}, a {kind}")
        if due and self.fault == "kill":
            _die()
        if due:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _die() -> None:
    """End this process as `kill -9` does: no handler, no flush, no clean-up."""
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)
