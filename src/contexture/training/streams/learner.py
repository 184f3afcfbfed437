"""A model that is conditioned on its recent pairs and trained online at the same time.

    said of y_t  <-  the state after the pairs before, the features of t, and the weights of the last step

Every `chunk` pairs the weights take one step of AdamW: on the chunk, read from the state at its start, which is not
differentiated (as in Transformer-XL, Dai et al., 2019, arXiv:1901.02860), and on `replay` streams that run through the
past from random positions. After Bornschein et al., Transformers for Supervised Online Continual Learning,
arXiv:2403.01554. Every prediction is made before its target is seen; memory and time per pair are bounded.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contexture.models.state import map_state, tensors
from contexture.models.stream import StreamModel, StreamModelConfig, StreamState, gaussian, log_chances, two_layers
from contexture.randomness import generator
from contexture.training.streams.config import StreamConfig
from contexture.training.streams.growth import adamw, grow
from contexture.training.streams.past import Past
from contexture.training.streams.reader import Features, Pair, PairReader, widened
from contexture.training.streams.said import Said

CLIP = 1.0
FIRST_CLASSES = 8

Known = tuple[int, tuple[float, float]]
"""How many labels were known, and the mean and standard deviation of the targets."""


class StreamLearner:
    """`predict` before, `learn` after; or `absorb` for many pairs, which says the same and is faster.

    >>> learner = StreamLearner(StreamConfig(context=4, chunk=2, width=8, num_heads=2))
    >>> learner.predict({"a": 1.0}).labels
    ()
    >>> learner.learn({"a": 1.0}, "yes")
    >>> learner.predict({"a": 1.0}).labels
    ('yes',)
    """

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self.generator = generator(config.seed, "stream")
        classes = FIRST_CLASSES if config.target == "classification" else 0
        shape = StreamModelConfig(
            num_classes=classes, backbone=two_layers(config.context, config.width, config.num_heads)
        )
        self.model = StreamModel(shape, generator=self.generator)
        self.optimiser = adamw(self.model, config.rate)
        self.reader = PairReader(config.target, num_slots=shape.num_slots)
        self.past = Past(config)
        self.pending: list[Pair] = []
        self.seen = 0
        self.states = self.model.init_state(1 + config.replay)
        """The state at the start of the present chunk, and those of the replay streams."""
        self.now = self.model.init_state(1)
        """The state after the last pair."""

    def predict(self, features: Features) -> Said:
        """What is said of the target of these features; nothing is learned, and nothing changes."""
        values, present = (torch.tensor(part[None], dtype=torch.float32) for part in self.reader.show(features))
        with torch.no_grad():
            if self.config.context:
                said = self.model.predict(values, present, self.now)
            else:
                said = self.model.alone(values[:, None], present[:, None])[0]
        return self._said(said, [(len(self.reader.labels), self.reader.law)])[0]

    def learn(self, features: Features, y: Any) -> None:
        """Take a pair in; at the end of a chunk the weights take a step.

        Raises InputError for a feature that is neither a number nor a text, and for a target that is none.
        """
        pair = self._take(features, y)
        if len(self.pending) == self.config.chunk:
            self._step()
        elif self.config.context:
            with torch.no_grad():
                values, present, targets, _ = self._batch([[pair]])
                _, self.now = self.model.stream(values, present, targets, self.now)

    def absorb(self, rows: Iterable[Features], targets: Iterable[Any]) -> list[Said]:
        """Predict and learn pair after pair; what is said of each comes from those before it alone.

        Whole chunks take one pass: the weights stand still within a chunk, so `predict` would have said the same.
        """
        said: list[Said] = []
        pairs = zip(rows, targets, strict=True)
        while waiting := list(islice(pairs, self.config.chunk - len(self.pending))):
            if len(waiting) < self.config.chunk:
                for features, y in waiting:
                    said.append(self.predict(features))
                    self.learn(features, y)
                continue
            before: list[Known] = []
            for features, y in waiting:
                before.append((len(self.reader.labels), self.reader.law))
                self._take(features, y)
            said += self._said(self._step(), before)
        return said

    def make_room(self, num_slots: int, num_classes: int) -> None:
        """Grow to hold at least as many slots and classes."""
        slots, classes = self.model.config.num_slots, self.model.config.num_classes
        if num_slots <= slots and num_classes <= classes:
            return
        while slots < num_slots:
            slots *= 2
        while classes < num_classes:
            classes *= 2
        if self.seen:
            self.optimiser = grow(
                self.model, self.optimiser, num_slots=slots, num_classes=classes, generator=self.generator
            )
        else:  # nothing is learned yet, and weights drawn at once for all features are of one size
            shape = replace(self.model.config, num_slots=slots, num_classes=classes)
            self.model = StreamModel(shape, generator=self.generator)
            self.optimiser = adamw(self.model, self.config.rate)
        self.reader.scale.widen(slots)
        self.past.pairs = [widened(pair, slots) for pair in self.past.pairs]
        self.pending = [widened(pair, slots) for pair in self.pending]

    def _take(self, features: Features, y: Any) -> Pair:
        known = len(self.reader.labels)
        self.reader.meet(features, y)
        self.pending.append(self.reader.take(features, y, known=known))
        self.make_room(len(self.reader.slots), len(self.reader.labels))
        self.seen += 1
        return self.pending[-1]

    def _batch(self, rows: Sequence[Sequence[Pair]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """values, present: [rows, pairs, slots]; y, and the labels known before each: [rows, pairs]."""
        kind = torch.int64 if self.config.target == "classification" else torch.float32
        return (
            torch.tensor(np.array([[pair.values for pair in row] for row in rows]), dtype=torch.float32),
            torch.tensor(np.array([[pair.present for pair in row] for row in rows]), dtype=torch.float32),
            torch.tensor([[pair.y for pair in row] for row in rows]).to(kind),
            torch.tensor([[pair.known for pair in row] for row in rows]),
        )

    def _step(self) -> Tensor:
        """Learn from the chunk and from the past; returns what was said of the chunk, [chunk, said]."""
        chunk, rows = self.pending, [self.pending]
        if self.config.rate > 0:
            replayed, started = self.past.replayed(len(self.reader.labels), generator=self.generator)
            rows += replayed
            for stream in started:
                self.states = _put(self.states, self.model.init_state(1), 1 + stream)
        values, present, y, known = self._batch(rows)
        known[1:] = len(self.reader.labels)  # of the past, every label is known by now
        with torch.set_grad_enabled(self.config.rate > 0):
            if self.config.context:
                state = map_state(lambda part: part[: len(rows)], self.states)
                said, state = self.model.stream(values, present, y, state)
                after = map_state(lambda part: part.detach(), state)
                self.states, self.now = _put(self.states, after, 0), map_state(lambda part: part[:1], after)
            else:
                said = self.model.alone(values, present)
            if self.config.rate > 0:
                self.optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(self._losses(said, y, known).mean())
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
                self.optimiser.step()
        self.past.add(chunk)
        self.pending = []
        return said[0].detach()

    def _losses(self, said: Tensor, y: Tensor, known: Tensor) -> Tensor:
        if self.config.target == "regression":
            mean, log_variance = gaussian(said)
            return 0.5 * (log_variance + (y - mean).square() * (-log_variance).exp())
        place = torch.where(y < known, y, said.shape[-1] - 1)
        return -log_chances(said, known).gather(-1, place.unsqueeze(-1)).squeeze(-1)

    def _said(self, said: Tensor, before: Sequence[Known]) -> list[Said]:
        """said: [pairs, said]; before: what was known before each of them."""
        if self.config.target == "classification":
            chances = log_chances(said, torch.tensor([known for known, _ in before])).tolist()
            return [
                Said(labels=tuple(self.reader.labels[:known]), log_chances=(*row[:known], row[-1]))
                for row, (known, _) in zip(chances, before, strict=True)
            ]
        means, log_variances = (part.tolist() for part in gaussian(said.double()))
        return [
            Said(mean=law[0] + law[1] * mean, variance=law[1] ** 2 * math.exp(log_variance))
            for mean, log_variance, (_, law) in zip(means, log_variances, before, strict=True)
        ]


def _put(state: StreamState, rows: StreamState, place: int) -> StreamState:
    """The state with rows replaced by those of another, from `place` on."""
    values = iter(list(tensors(rows)))

    def one(old: Tensor) -> Tensor:
        new = next(values)
        return torch.cat((old[:place], new, old[place + len(new) :]))

    put: StreamState = map_state(one, state)
    return put
