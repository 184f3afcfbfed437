"""Files and folders that appear whole or not at all, whatever moment the process is killed at.

Write under a temporary name in the same folder, fsync, rename, fsync the folder: rename is atomic within a file system,
and nothing is renamed before its bytes are durable (Pillai et al., "All file systems are not created equal: on the
complexity of crafting crash-consistent applications", OSDI 2014).

Hidden names beside a target NAME, all of which `sweep` undoes at the next opening:
.NAME.*.tmp = a file not yet whole; .NAME.new = a folder not yet whole; .NAME.out = a folder on its way out;
.NAME.was = a folder about to be replaced, put back if its successor never arrived.
"""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCK_OFFSET = 1 << 40
_FULL_FSYNC: int | None = None if sys.platform == "win32" else getattr(fcntl, "F_FULLFSYNC", None)
_BINARY = getattr(os, "O_BINARY", 0)


class Disk:
    """Every call that changes the disk, in one place, so that a test can make any one of them fail or kill."""

    def write(self, handle: int, data: bytes) -> None:
        """Write all of `data` at the handle's position."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]

    def fsync(self, handle: int) -> None:
        """Return once what was written is durable (on macOS, past the drive's own cache where it allows that)."""
        _flush(handle)

    def fsync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable, on platforms where a folder can be opened."""
        if os.name == "nt":
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            _flush(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` the name `target`, replacing a file of that name in one step."""
        os.replace(source, target)

    def truncate(self, handle: int, length: int) -> None:
        """Cut an open file to `length` bytes."""
        os.ftruncate(handle, length)

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with all it holds; what is not there is removed already."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


DISK = Disk()


def try_lock(handle: int) -> bool:
    """Take the exclusive lock of an open file; False if another process holds it.

    Closing the file frees the lock, and so does the death of its process.
    """
    try:
        if sys.platform == "win32":
            position = os.lseek(handle, 0, os.SEEK_CUR)
            os.lseek(handle, _LOCK_OFFSET, os.SEEK_SET)
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(handle, position, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        # Some network file systems have no locks; a lone writer, the usual case, needs none.
        return True
    return True


def make_folder(path: str | Path, *, disk: Disk = DISK) -> None:
    """Make a folder and those above it that are missing, each durable on return."""
    path = Path(path)
    if not path.is_dir():
        make_folder(path.parent, disk=disk)
        path.mkdir(exist_ok=True)
        disk.fsync_folder(path.parent)


def write_file(path: str | Path, data: bytes, *, disk: Disk = DISK) -> None:
    """Replace the contents of `path` by `data`: a reader, or a crash, sees all of the old or all of the new.

    Raises OSError, after which the file is as it was (or, if only the folder's fsync failed, holds the new contents)
    and nothing else is left in the folder.
    """
    path = Path(path)
    make_folder(path.parent, disk=disk)
    _sweep_files(path.parent, f".{path.name}.", disk)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        try:
            try_lock(handle)
            disk.write(handle, data)
            disk.fsync(handle)
            if os.name != "nt":
                # Still open, hence still locked: no other writer takes it for a dead process's.
                disk.rename(temporary, path)
        finally:
            os.close(handle)
        if os.name == "nt":
            disk.rename(temporary, path)
        disk.fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.remove(temporary)
        raise


def write_folder(path: str | Path, files: Iterable[tuple[str, bytes]], *, disk: Disk = DISK) -> None:
    """Make `path` a folder holding exactly `files` (name, contents), written in the order given.

    The folder appears by one rename when every file in it is durable; a folder already there is moved aside first and
    put back on failure. Raises OSError, with nothing left behind.
    """
    path = Path(path)
    new, was = _hidden(path, "new"), _hidden(path, "was")
    try:
        make_folder(path.parent, disk=disk)
        restore(path, disk=disk)
        new.mkdir()
        for name, data in files:
            handle = os.open(new / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
            try:
                disk.write(handle, data)
                disk.fsync(handle)
            finally:
                os.close(handle)
        disk.fsync_folder(new)
        if path.exists():
            disk.rename(path, was)
        disk.rename(new, path)
        disk.fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            restore(path, disk=disk)
        raise
    # The new folder is durable: what it replaced is clutter now, for the next sweep if not for this one.
    with contextlib.suppress(OSError):
        disk.remove(was)


def remove_folder(path: str | Path, *, disk: Disk = DISK) -> None:
    """Remove a folder so that nobody ever sees half of it: it is renamed first."""
    path = Path(path)
    out = _hidden(path, "out")
    disk.remove(out)
    disk.rename(path, out)
    disk.remove(out)


def restore(path: str | Path, *, disk: Disk = DISK) -> None:
    """Undo what a killed process had begun on the folder `path`."""
    path = Path(path)
    new, out, was = (_hidden(path, kind) for kind in ("new", "out", "was"))
    if was.exists() and not path.exists():
        disk.rename(was, path)
    for stray in (new, out, was):
        if stray.exists():
            disk.remove(stray)


def standing(path: str | Path) -> Path:
    """Where to read the folder `path`: itself or, if a writer stopped just before replacing it, where it was moved."""
    path = Path(path)
    was = _hidden(path, "was")
    return was if was.is_dir() and not path.exists() else path


def sweep(folder: str | Path, *, disk: Disk = DISK) -> None:
    """Undo everything that killed processes had begun in `folder`; a file that a live process is writing is kept."""
    folder = Path(folder)
    _sweep_files(folder, ".", disk)
    for stray in sorted(folder.glob(".*")):
        if stray.suffix in (".new", ".out", ".was") and stray.is_dir():
            restore(stray.with_name(stray.stem[1:]), disk=disk)


def _flush(handle: int) -> None:
    if _FULL_FSYNC is not None and sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, _FULL_FSYNC)
            return
    os.fsync(handle)


def _hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _sweep_files(folder: Path, prefix: str, disk: Disk) -> None:
    """Remove the temporary files of dead processes: those whose lock is free."""
    for stray in sorted(folder.glob(".*.tmp")):
        if not stray.name.startswith(prefix) or not stray.is_file():
            continue
        with contextlib.suppress(FileNotFoundError, PermissionError):
            handle = os.open(stray, os.O_RDWR | _BINARY)
            try:
                abandoned = try_lock(handle)
            finally:
                os.close(handle)
            if abandoned:
                disk.remove(stray)
