r"""A transformer with weights set by hand that plans as UCB-VI does, at every step of a history in one forward pass.

    token t = (s_{t-1}, a_{t-1}, r_{t-1}, s_t, whether s_t began an episode, its episode, its place)

    pair     1[s, a] = relu(1_s + 1_a - 1),  gated:  y 1[s, a] = relu(y + B (1[s, a] - 1)) - relu(-y + B (1[s, a] - 1))
    count    1[e_j < e_i] = relu(e_i - e_j) - relu(e_i - e_j - 1): two heads that add what earlier episodes brought
    tables   1/n and width sqrt(1/n) at whole numbers, by ReLU units with a bend at each of them
    model    P(s'|s,a) = n(s,a,s') (1/m), r(s,a) = sum (1/n): the product of two slots is the score of a head
    backup   Q_h = min(h, r + P max_a Q_{h-1} + bonus), h = 1, .., horizon steps left: a layer, and one for each maximum

Everything is exact for whole counts up to `most` and rewards below B. After Lin et al. 2023, arXiv:2310.08566, whose
transformer has 2 horizon + 8 layers; this one has actions * horizon + 4.
Shapes: states, actions int64 [batch, time]; rewards, starts [batch, time]; values [batch, time, horizon, states,
actions], by the steps gone, as in `contexture.agents.ucb_vi`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.models.primitives import Attention, FeedForward, Layer, Slots, pieces, together

BOUND = 1e3
"""B: above any reward, count or value."""

Rows = Float[Tensor, "rows width"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueIterationLayers:
    """UCB-VI; optimistic: without it there is no bonus, and what was never tried is worth nothing."""

    num_states: int
    num_actions: int
    horizon: int
    num_tokens: int
    width: float
    optimistic: bool = True

    @property
    def most(self) -> int:
        """No count exceeds it."""
        return self.num_tokens

    @cached_property
    def slots(self) -> Slots:
        """Where a token holds what; Q is kept for every number of steps left."""
        s, a, pairs = self.num_states, self.num_actions, self.num_states * self.num_actions
        sizes = {"state": s, "action": a, "reward": 1, "next": s, "before": 1, "now": 1, "one": 1}
        sizes |= {"here": self.num_tokens, "pair": pairs, "paid": pairs, "went": pairs * s}
        sizes |= {"tries": pairs, "sums": pairs, "visits": pairs * s, "moved": pairs}
        sizes |= {"share": pairs, "moved-share": pairs, "bonus": pairs, "untried": pairs}
        sizes |= {"mean": pairs, "chance": pairs * s}
        for left in range(self.horizon + 1):
            sizes |= {f"later{left}": pairs, f"q{left}": pairs, f"v{left}": s}
        return Slots(**sizes)

    @cached_property
    def layers(self) -> Sequence[Layer]:
        """All layers in order."""
        parts: list[Layer] = [self._pairs(), self._gate(), self._count(), self._tables(), self._model()]
        for left in range(1, self.horizon + 1):
            parts += [self._expect(left), self._backup(left), *self._largest(left)]
        return parts

    @property
    def num_layers(self) -> int:
        """Attention and network count as one layer where they follow each other."""
        feed = [isinstance(part, FeedForward) for part in self.layers]
        return sum(feed) + sum(not one and not after for one, after in zip(feed, [*feed[1:], False], strict=True))

    def values(
        self,
        states: Int[Tensor, "batch time"],
        actions: Int[Tensor, "batch time"],
        rewards: Float[Tensor, "batch time"],
        starts: Shaped[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time horizon states actions"]:
        """Q of the episode that every step is in; what is done at t and after it is not looked at."""
        h = self._tokens(states, actions, rewards, starts)
        for layer in self.layers:
            h = layer(h)
        found = [h[..., self.slots[f"q{left}"]] for left in range(self.horizon, 0, -1)]
        return torch.unflatten(torch.stack(found, 2), -1, (self.num_states, self.num_actions))

    def _tokens(self, states: Tensor, actions: Tensor, rewards: Tensor, starts: Tensor) -> Tensor:
        slots, (batch, time) = self.slots, states.shape
        episode = starts.to(torch.float64).cumsum(1)
        h = slots.fill(batch, time, one=1.0, here=torch.eye(time, self.num_tokens, dtype=torch.float64))
        h[..., slots["now"]] = episode.unsqueeze(-1)
        h[:, 1:, slots["before"]] = episode[:, :-1].unsqueeze(-1)
        h[:, 1:, slots["state"]] = F.one_hot(states[:, :-1], self.num_states).double()
        h[:, 1:, slots["action"]] = F.one_hot(actions[:, :-1], self.num_actions).double()
        h[:, 1:, slots["reward"]] = rewards[:, :-1].double().unsqueeze(-1)
        # The state after an episode's last step is the start of the next one, which the action did not bring about.
        h[..., slots["next"]] = F.one_hot(states, self.num_states) * (1.0 - starts.double()).unsqueeze(-1)
        return h

    def _rows(self, name: str, *shape: int) -> Tensor:
        """The rows of a slot, shaped."""
        return self.slots.rows(name).view(*shape, self.slots.width)

    def _pairs(self) -> FeedForward:
        s, a = self.num_states, self.num_actions
        both = self._rows("state", s, 1) + self._rows("action", 1, a) - self._rows("one", 1, 1)
        return FeedForward(into=both.flatten(0, 1), out=self.slots.rows("pair"), activation=F.relu)

    def _gate(self) -> FeedForward:
        """What the pair was paid, and where it led."""
        slots, s = self.slots, self.num_states
        shut = BOUND * (slots.rows("pair") - slots.rows("one"))
        reward, paid, went = slots.rows("reward"), slots.rows("paid"), slots.rows("went")
        led = self._rows("pair", len(paid), 1) + self._rows("next", 1, s) - self._rows("one", 1, 1)
        return FeedForward(
            into=torch.cat((reward + shut, -reward + shut, led.flatten(0, 1))),
            out=torch.cat((paid, -paid, went)),
            activation=F.relu,
        )

    def _count(self) -> Attention:
        slots, s = self.slots, self.num_states
        read = slots.rows("pair", "paid", "went", "went")
        moved = slots.rows("moved").repeat_interleave(s, 0)
        write = torch.cat((slots.rows("tries", "sums", "visits"), moved))
        now, one = slots.rows("now"), slots.rows("one")
        return Attention(
            queries=torch.stack((torch.cat((now, one)), torch.cat((now - one, one)))),
            keys=torch.cat((one, -slots.rows("before"))).expand(2, -1, -1),
            values=read.expand(2, -1, -1),
            outputs=torch.stack((write, -write)),
            weigh=torch.relu,
        )

    def _tables(self) -> FeedForward:
        """1 / max(n, 1) of both counts, the bonus, and whether n is zero."""
        slots = self.slots
        counts = torch.arange(self.most + 1, dtype=torch.float64)
        often = counts.clamp(min=1)
        parts = [
            pieces(slots.rows("tries"), slots.rows("share"), knots=counts, values=1 / often),
            pieces(slots.rows("moved"), slots.rows("moved-share"), knots=counts, values=1 / often),
        ]
        if self.optimistic:
            bonus = self.width * often.rsqrt()
            parts.append(pieces(slots.rows("tries"), slots.rows("bonus"), knots=counts, values=bonus))
            parts.append(
                FeedForward(into=slots.rows("one") - slots.rows("tries"), out=slots.rows("untried"), activation=F.relu)
            )
        return together(*parts)

    def _model(self) -> Attention:
        """Means of rewards and chances of next states."""
        slots, s = self.slots, self.num_states
        spread = slots.rows("moved-share").repeat_interleave(s, 0)
        first, second = slots.rows("sums", "visits"), torch.cat((slots.rows("share"), spread))
        return self._products(first.unsqueeze(1), second.unsqueeze(1), slots.rows("mean", "chance"))

    def _expect(self, left: int) -> Attention:
        """P max_a Q of one step less."""
        pairs = self.num_states * self.num_actions
        later = self._rows(f"v{left - 1}", 1, self.num_states).expand(pairs, -1, -1)
        return self._products(self._rows("chance", pairs, self.num_states), later, self.slots.rows(f"later{left}"))

    def _products(self, first: Tensor, second: Tensor, write: Rows) -> Attention:
        """Heads that write the inner product of rows [heads, rows, width] read in the token itself."""
        here, one = self.slots.rows("here"), self.slots.rows("one")
        own, away = BOUND * here.expand(len(first), -1, -1), -BOUND * one.expand(len(first), -1, -1)
        keys = torch.cat((second, here.expand(len(first), -1, -1), one.expand(len(first), -1, -1)), 1)
        return Attention(
            queries=torch.cat([torch.cat((sign * first, own, away), 1) for sign in (1, -1)]),
            keys=torch.cat((keys, keys)),
            values=one.expand(2 * len(first), -1, -1),
            outputs=torch.cat((write, -write)).unsqueeze(1),
            weigh=torch.relu,
        )

    def _backup(self, left: int) -> FeedForward:
        """Q = left - relu(left - hoped), with a hope beyond all bounds where nothing was tried; v starts from Q_1."""
        slots, s, a = self.slots, self.num_states, self.num_actions
        hoped = slots.rows("mean") + slots.rows(f"later{left}") + slots.rows("bonus") + BOUND * slots.rows("untried")
        whole = left * slots.rows("one")
        write = self._rows(f"q{left}", s, a).clone()
        write[:, 0] += slots.rows(f"v{left}")
        gain = write.flatten(0, 1)
        return FeedForward(
            into=torch.cat((whole.expand(len(hoped), -1), whole - hoped)),
            out=torch.cat((gain, -gain)),
            activation=F.relu,
        )

    def _largest(self, left: int) -> list[FeedForward]:
        """v <- max(v, Q_a) = v + relu(Q_a - v), for every further action."""
        v = self.slots.rows(f"v{left}")
        q = self._rows(f"q{left}", self.num_states, self.num_actions)
        return [FeedForward(into=q[:, a] - v, out=v, activation=F.relu) for a in range(1, self.num_actions)]
