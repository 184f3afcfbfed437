"""`contexture serve`: the catalogue's pages for this machine, with claims that run at the press of a button."""

import argparse
import contextlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contexture.commands.claim_command import user_cache
from contexture.commands.console import say
from contexture.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"
FOLDER = "contexture/runs"
USUAL_PORT = 8765


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    try:
        import uvicorn

        from contexture.catalogue.server import application
    except ModuleNotFoundError as error:
        raise InputError(f"`contexture serve` needs {error.name}: pip install 'contexture[web]'") from error
    from contexture.catalogue.jobs import Jobs
    from contexture.catalogue.library import load_library

    with _listening(options.port) as listener:
        port = listener.getsockname()[1]
        jobs = Jobs(Path(options.run_dir) if options.run_dir else user_cache() / FOLDER, measure_command)
        app = application(lambda: load_library(options.results), jobs=jobs, port=port)
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=256,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=3,
            ws="none",
        )
        url = f"http://{HOST}:{port}/"
        say(f"the catalogue: {url} (Ctrl-C ends it)")
        if options.browser:
            import threading
            import webbrowser

            threading.Timer(0.5, webbrowser.open, (url,)).start()
        # Ctrl-C is how a server ends: it has stopped what was running by then.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    return 0


def measure_command(paper: str, claim: str, scale: str, folder: Path) -> "Sequence[str]":
    """What measures a claim for a page: this very program."""
    asked = [paper, "--only", claim, "--scale", scale, "--events", "--again", "--run-dir", str(folder)]
    return [sys.executable, "-m", "contexture.cli", "claim", *asked]


def _listening(port: int | None) -> socket.socket:
    """A socket of this machine alone: at the port asked for or, where none is, at the usual one or any that is free."""
    for wanted in (USUAL_PORT, 0) if port is None else (port,):
        # Named as TCP, so that asyncio sends at once: a body held back until its headers are acknowledged waits 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, wanted))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if port is not None:
                raise InputError(f"the port {port} cannot be had ({error.strerror or error}): name another") from error
            continue
        return listener
    raise InputError("no port of this machine can be had")
