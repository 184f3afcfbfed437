"""What `contexture claim --events` prints: one JSON object a line, for a program that watches a run.

    {"event": "measuring", "claim": NAME, "sentence": ..., "done": i, "of": n}
    {"event": "training", "step": s, "steps": n}                a model begins to train, or goes on
    {"event": "step", "step": s, "steps": n, "loss": x}         at most five a second, and the last one
    {"event": "measured", "claim": {...}, "figure": "<svg"}     a claim's result, as --json prints it, and its picture

The run ends when its standard input does: who watches holds the other end of a pipe, and cannot leave it behind.
"""

import _thread
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from contexture.training.progress import Smoothed

if TYPE_CHECKING:
    from collections.abc import Callable

    from contexture.claims.harness import Result
    from contexture.claims.protocol import Paper

EVERY = 0.2
GRACE = 5.0


class Events:
    """Prints events of a paper's claims and, as a training's `Progress`, of the models that they train."""

    def __init__(
        self,
        paper: "Paper",
        *,
        num_claims: int,
        figure: "Callable[[Result], str]",
        stream: TextIO | None = None,
        every: float = EVERY,
    ) -> None:
        self.paper, self.num_claims, self.figure, self.every = paper, num_claims, figure, every
        self._stream = sys.stdout if stream is None else stream
        self._told: set[str] = set()

    def __call__(self, results: "dict[str, Result]", running: str) -> None:
        """Tell what is new: claims measured since the last call, and the one being measured."""
        for name in results.keys() - self._told:
            self._told.add(name)
            self._tell("measured", claim=results[name].to_json(), figure=self.figure(results[name]))
        if running:
            sentence = self.paper.claim(running).sentence
            self._tell("measuring", claim=running, sentence=sentence, done=len(results), of=self.num_claims)

    def start(self, *, steps: int, done: int) -> None:
        """A model is about to train from step `done` to step `steps`."""
        self._steps, self._shown, self._loss = steps, 0.0, Smoothed()
        self._tell("training", step=done, steps=steps)

    def advance(self, step: int, loss: float) -> None:
        """Tell the step and the smoothed loss if it is time, or if this is the last step."""
        average, now = self._loss.add(loss), time.monotonic()
        if now - self._shown >= self.every or step == self._steps:
            self._shown = now
            self._tell("step", step=step, steps=self._steps, loss=average)

    def note(self, text: str) -> None:
        """Say one sentence on the standard error stream."""
        print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Nothing is left to end."""

    def _tell(self, event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), file=self._stream, flush=True)


def end_with_input(handle: int = 0, *, grace: float = GRACE) -> None:
    """Interrupt this process, as Ctrl-C would, when nobody holds its input any more; after `grace` seconds end it."""

    def watch() -> None:
        # Not through sys.stdin, whose lock a waiting thread would hold when the interpreter ends.
        while os.read(handle, 4096):
            pass
        _thread.interrupt_main()
        time.sleep(grace)
        os._exit(130)

    threading.Thread(target=watch, name="input", daemon=True).start()
