"""One run of a claim as a page shows it, made of nothing but the lines of its record.

    {"event": "asked", "paper", "claim", "scale", "at"}     first; the run is acknowledged once this line is durable
    {"event": "started", "pid", "born"}                     the process, and what tells it from a later one so numbered
    {"event": "measuring" | "training" | "step" | "measured", ...}     what `contexture claim --events` prints
    {"event": "said", "text"}                               a line of its standard error stream
    {"event": "stopping"}                                   somebody asked for its end
    {"event": "ended", "state", "status", "at"}             last

The same fold serves the live run and the record read back, so a reload and a restart show what stood there before.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

State = Literal["running", "stopping", "done", "failed", "stopped", "interrupted"]
MOST_LINES = 200
MOST_POINTS = 400
MOST_TRAININGS = 12


@dataclass(slots=True)
class Training:
    """A model's learning curve: steps taken, steps asked for, and (step, smoothed loss), thinned as it grows."""

    steps: int
    done: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)

    def add(self, step: int, loss: float) -> None:
        """Take in a point; every other one is dropped when there are too many."""
        self.done = step
        self.curve.append((step, loss))
        if len(self.curve) > MOST_POINTS:
            self.curve = [*self.curve[:-1:2], self.curve[-1]]


@dataclass(slots=True)
class Job:
    """A run of one claim: where it stands, what it said, what it measured. `version` counts the events taken in."""

    id: str
    paper: str = ""
    claim: str = ""
    scale: str = ""
    began: str = ""
    ended: str = ""
    state: State = "running"
    status: int | None = None
    pid: int | None = None
    born: str = ""
    sentence: str = ""
    said: list[str] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    num_trainings: int = 0
    measured: Mapping[str, Any] | None = None
    figure: str = ""
    version: int = 0

    @classmethod
    def from_record(cls, id: str, lines: Iterable[Mapping[str, Any]]) -> Self:
        """The run that a record tells of."""
        job = cls(id)
        for line in lines:
            job.take(line)
        return job

    def snapshot(self) -> Self:
        """The run as it stands now; what it measured is shared, as that never changes."""
        trainings = [replace(one, curve=list(one.curve)) for one in self.trainings]
        return replace(self, said=list(self.said), trainings=trainings)

    @property
    def over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state not in ("running", "stopping")

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in one event; what is not known is passed over."""
        self.version += 1
        match line:
            case {"event": "asked"}:
                self.paper, self.claim, self.scale = line["paper"], line["claim"], line["scale"]
                self.began = line["at"]
            case {"event": "started"}:
                self.pid, self.born = line["pid"], line["born"]
            case {"event": "measuring"}:
                self.sentence = line["sentence"]
            case {"event": "training"}:
                self.num_trainings += 1
                self.trainings.append(Training(steps=line["steps"], done=line["step"]))
                del self.trainings[:-MOST_TRAININGS]
            case {"event": "step"} if self.trainings:
                self.trainings[-1].add(line["step"], line["loss"])
            case {"event": "measured"}:
                self.measured, self.figure = line["claim"], line["figure"]
            case {"event": "said"}:
                self.said.append(line["text"])
                del self.said[:-MOST_LINES]
            case {"event": "stopping"} if not self.over:
                self.state = "stopping"
            case {"event": "ended"}:
                self.state, self.status, self.ended = line["state"], line["status"], line["at"]
