"""What pages show of runs: the button beside a claim, a run as it goes, all runs.

A run is one element, `#run-CLAIM`, that asks for itself anew every second until it is over; without scripts its own
page shows it, and loads itself anew.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from contexture.catalogue.job import Job, State, Training
from contexture.catalogue.jobs import Jobs
from contexture.catalogue.library import Claimed, Library, Record
from contexture.catalogue.pages import VERDICT_TITLES
from contexture.catalogue.plots import Scale, spread
from contexture.catalogue.view import View, render
from contexture.claims.harness import Result
from contexture.reports.numbers import number
from contexture.training.progress import duration

TITLES: dict[State, str] = {
    "running": "Running",
    "stopping": "Stopping",
    "done": "Done",
    "failed": "Failed",
    "stopped": "Stopped",
    "interrupted": "Interrupted: the server ended before it did",
}
WIDTH, HEIGHT = 540.0, 170.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 8.0, 10.0, 24.0


@dataclass(frozen=True, slots=True)
class RunPages:
    """The pages of runs. token: what a form needs to begin and to stop one."""

    jobs: Jobs
    token: str

    def action(self, record: Record, claim: Claimed, view: View) -> Markup:
        """What stands beside a claim: its latest run here, or the button that begins one; nothing without its code."""
        if claim.code is None:
            return Markup("")
        job = self.jobs.latest(record.key, claim.name)
        return self.part(job, view) if job else self.offer(record.key, claim.name, view)

    def offer(self, paper: str, claim: str, view: View) -> Markup:
        """The button that begins a run."""
        on = self.jobs.running()
        values = {"paper": paper, "claim": claim, "token": self.token, "may_start": self.jobs.may_start, "job": None}
        return Markup(render("_no_run.html", view, **values, busy=on.id if on else ""))

    def part(self, job: Job, view: View) -> Markup:
        """A run as it stands now."""
        values = {"paper": job.paper, "claim": job.claim, "token": self.token, "may_start": self.jobs.may_start}
        return Markup(
            render(
                "_run.html",
                view,
                **values,
                job=job,
                title=TITLES[job.state],
                elapsed=_elapsed(job),
                begun=_begun(job),
                curve=curve(job.trainings),
                result=_result(job),
                verdict_titles=VERDICT_TITLES,
            )
        )

    def page(self, job: Job, library: Library, view: View) -> str:
        """The page of one run."""
        record = library.papers.get(job.paper)
        said = (
            next((c.sentence for c in record.claims if c.name == job.claim), job.sentence) if record else job.sentence
        )
        return render("run.html", view, job=job, record=record, sentence=said, part=self.part(job, view))

    def listed(self, view: View) -> str:
        """All runs."""
        return render("runs.html", view, jobs=self.jobs.all(), titles=TITLES, begun=_begun)


def _result(job: Job) -> Result | None:
    try:
        return Result.from_json(job.measured) if job.measured is not None else None
    except (TypeError, KeyError):
        # Measured by an earlier program, whose results had other fields.
        return None


def _begun(job: Job) -> str:
    return f"{datetime.fromisoformat(job.began):%Y-%m-%d %H:%M} UTC"


def _elapsed(job: Job) -> str:
    begun = datetime.fromisoformat(job.began)
    ended = datetime.fromisoformat(job.ended) if job.ended else datetime.now(UTC)
    return duration(max(0.0, (ended - begun).total_seconds()))


def curve(trainings: list[Training]) -> Markup:
    """The learning curves of a run's models, the one that is training before the others; "" without points."""
    shown = [one for one in trainings if len(one.curve) > 1]
    if not shown:
        return Markup("")
    losses = [loss for one in shown for _, loss in one.curve]
    log = spread(losses)
    x = Scale([0.0, *(float(one.steps) for one in shown)], LEFT, WIDTH - RIGHT, log=False)
    y = Scale(losses, HEIGHT - BOTTOM, TOP, log=log)
    lines = []
    for one in shown:
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in one.curve)
        lines.append(f'<polyline class="{"now" if one is shown[-1] else "earlier"}" points="{points}"/>')
    step, loss = shown[-1].curve[-1]
    lines.append(f'<circle cx="{x(step):.1f}" cy="{y(loss):.1f}" r="3"/>')
    label = f"Loss while training: {number(shown[-1].curve[0][1])} at first, {number(loss)} after step {step}"
    end = HEIGHT - BOTTOM
    text = [
        f'<text x="{LEFT - 6:g}" y="{end:g}" text-anchor="end">{number(min(losses))}</text>',
        f'<text x="{LEFT - 6:g}" y="{TOP + 8:g}" text-anchor="end">{number(max(losses))}</text>',
        f'<text x="{LEFT:g}" y="{HEIGHT - 6:g}">0</text>',
        f'<text x="{WIDTH - RIGHT:g}" y="{HEIGHT - 6:g}" text-anchor="end">{shown[-1].steps} steps</text>',
        f'<text x="{(LEFT + WIDTH) / 2:g}" y="{HEIGHT - 6:g}" text-anchor="middle">loss{", logarithmic" * log}</text>',
    ]
    frame = f'<path class="frame" d="M{LEFT:g} {TOP:g}V{end:g}H{WIDTH - RIGHT:g}"/>'
    return Markup(
        f'<svg class="curve" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">'
        f"{frame}{''.join(lines)}{''.join(text)}</svg>"
    )
