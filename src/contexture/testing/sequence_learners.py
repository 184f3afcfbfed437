"""The laws of learners over tokens.

| law | what it holds |
|---|---|
| order | ids after t change nothing in the logits at t |
| episodes | a sequence's logits do not depend on the other sequences, nor on where it stands |
| segments | packed sequences get the logits that they get one by one |
| seed | the same call gives the same bits |
| inputs | ids and segments are left as they were; logits are finite and [batch, time, vocabulary] |
"""

from collections.abc import Callable

import torch
from torch import Tensor

from contexture.protocols import SequenceLearner
from contexture.randomness import generator
from contexture.testing.agreement import agree
from contexture.testing.errors import LawError
from contexture.testing.laws import run_laws

BATCH, TIME, IDS = 3, 24, 8
CUT = 11


def check_sequence_learner(learner: SequenceLearner, *, laws: tuple[str, ...] = ()) -> None:
    """Raise LawError unless a learner over at least eight token ids keeps its laws; fp32 logits agree to 1e-5."""
    run_laws(LAWS, learner, waivers=learner.card.waivers, only=laws)


def _ids() -> Tensor:
    return torch.randint(IDS, (BATCH, TIME), generator=generator(0, "sequence learner laws"))


def _same(law: str, what: str, got: Tensor, expected: Tensor) -> None:
    tolerance = 1e-10 if expected.dtype == torch.float64 else 1e-5
    agree(law, what, got, expected, tolerance=tolerance, scale=1.0)


def _order(learner: SequenceLearner) -> None:
    ids = _ids()
    before = learner.logits(ids)
    for t in range(TIME - 1):
        later = torch.cat([ids[:, : t + 1], (ids[:, t + 1 :] + 1) % IDS], dim=1)
        after = learner.logits(later)[:, : t + 1]
        _same("order", f"the logits up to {t}, with other ids after {t},", after, before[:, : t + 1])


def _episodes(learner: SequenceLearner) -> None:
    ids = _ids()
    together = learner.logits(ids)
    _same("episodes", "the logits in another order", learner.logits(ids.flip(0)).flip(0), together)
    for b in range(BATCH):
        _same("episodes", f"the logits of sequence {b} alone", learner.logits(ids[b : b + 1]), together[b : b + 1])


def _segments(learner: SequenceLearner) -> None:
    ids = _ids()
    segments = torch.zeros_like(ids)
    segments[:, CUT:] = 1
    apart = torch.cat([learner.logits(ids[:, :CUT]), learner.logits(ids[:, CUT:])], dim=1)
    _same("segments", "the logits of packed sequences", learner.logits(ids, segments), apart)


def _seed(learner: SequenceLearner) -> None:
    ids = _ids()
    with torch.random.fork_rng(devices=[]):
        said = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            said.append(learner.logits(ids))
    differs = (said[0] != said[1]).nonzero()
    if len(differs):
        raise LawError("seed", "logits differ between two equal calls", position=tuple(int(i) for i in differs[0]))


def _inputs(learner: SequenceLearner) -> None:
    ids, segments = _ids(), torch.zeros(BATCH, TIME, dtype=torch.int64)
    logits = learner.logits(ids, segments)
    if not torch.equal(ids, _ids()) or bool(segments.any()):
        raise LawError("inputs", "logits changed the ids or the segments that it was shown")
    if logits.shape[:2] != ids.shape or logits.shape[2] < IDS or not bool(logits.isfinite().all()):
        raise LawError("inputs", f"logits are not finite numbers [batch, time, vocabulary]: {tuple(logits.shape)}")


LAWS: dict[str, Callable[[SequenceLearner], None]] = {
    "order": _order,
    "episodes": _episodes,
    "segments": _segments,
    "seed": _seed,
    "inputs": _inputs,
}
