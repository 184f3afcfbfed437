"""Processes in groups of their own: begun, interrupted, ended, and told from later ones that bear the same number."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def begin(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a command in a process group of its own, with pipes for all three streams."""
    pipe = subprocess.PIPE
    # Windows has no sessions, and takes no notice of the wish for one.
    return subprocess.Popen(list(command), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True)


def interrupt(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process that `begin` started to end: Ctrl-C for its group or, on Windows, the end of its input.

    Where this process ignores Ctrl-C, as one in a shell's background does, its children do too, and are terminated.
    """
    if sys.platform == "win32":
        close_input(process)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.killpg(process.pid, signal.SIGTERM if ignored else signal.SIGINT)


def close_input(process: "subprocess.Popen[bytes]") -> None:
    """Let a process see the end of its input."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def close_pipes(process: "subprocess.Popen[bytes]") -> None:
    """Close this end of all three pipes."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def wait_unreaped(process: "subprocess.Popen[bytes]") -> None:
    """Return when a process has ended; its number, and so its group's, is not given to another before `wait`."""
    if sys.platform == "win32" or not hasattr(os, "waitid"):
        process.wait()
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def end_group(pid: int) -> None:
    """Kill the process group of a process that `begin` started, itself and whatever it began."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            os.kill(pid, signal.SIGTERM)
        else:
            os.killpg(pid, signal.SIGKILL)


def birth(pid: int) -> str:
    """What tells a process from another that has had its number: boot and moment of its start; "" if it is gone.

    Also "" where the system does not say: such a process is never ended by its number alone.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The second field, the name, may hold spaces and parentheses; the moment of the start is the 22nd.
        return f"{boot} {status.rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return _birth_by_ps(pid) if sys.platform not in ("win32", "linux") else ""


def _birth_by_ps(pid: int) -> str:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
