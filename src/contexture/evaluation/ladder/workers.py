"""Cells spread over processes of one thread each: small models use two processes better than two threads.

A process that dies (out of memory, a crash in a kernel) fails the cell it was at and is replaced; Ctrl-C ends them all.
"""

import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from contexture.evaluation.ladder.cells import Cell
from contexture.ops.dispatch import overrides, use_all

END_SECONDS = 5.0


def run_cells(cells: Sequence[Cell], *, num_workers: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Every cell with its result, in the order in which they are done; 0 workers run them in this process."""
    if num_workers < 1:
        from contexture.evaluation.ladder.train_cell import run_cell

        for cell in cells:
            yield cell, run_cell(cell)
        return
    waiting = list(reversed(cells))
    workers: list[_Worker] = []
    try:
        for _ in range(min(num_workers, len(cells))):
            workers.append(_Worker())
            workers[-1].begin(waiting.pop())
        while busy := {worker.ours: worker for worker in workers if worker.cell is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                cell, result = worker.finish()
                if waiting:
                    worker.begin(waiting.pop())
                yield cell, result
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """One process, the cell it is at, and the pipe to it."""

    def __init__(self) -> None:
        self.cell: Cell | None = None
        self._start()

    def _start(self) -> None:
        # A forked process would inherit torch's thread pool in whatever state it is.
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, overrides()), daemon=True)
        with _without_interrupts():
            self.process.start()
        theirs.close()

    def begin(self, cell: Cell) -> None:
        """Hand a cell over."""
        self.cell = cell
        self.ours.send(cell)

    def finish(self) -> tuple[Cell, dict[str, Any]]:
        """Take the result; if the process is gone, the cell failed, and another process takes its place."""
        assert self.cell is not None
        cell, self.cell = self.cell, None
        try:
            return cell, self.ours.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            reason = f"the process that trained it ended with status {self.process.exitcode}"
            self.ours.close()
            self._start()
            return cell, {"status": "failed", "reason": reason}

    def end(self) -> None:
        """End the process, whatever it is at."""
        self.process.terminate()
        self.process.join(END_SECONDS)
        self.ours.close()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back; a process started meanwhile never gets it, and ours gets it afterwards.

    Ctrl-C reaches every process of the terminal, and the parent alone decides what it means.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, paths: Mapping[str, str]) -> None:
    """Train cells as they come, until the pipe is closed; ops take the paths that they take in the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    from contexture.evaluation.ladder.train_cell import run_cell

    torch.set_num_threads(1)
    while True:
        try:
            cell = pipe.recv()
        except EOFError:
            return
        with use_all(paths):
            pipe.send(run_cell(cell))
