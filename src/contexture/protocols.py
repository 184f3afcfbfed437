"""The protocols of the workbench and the value types that they exchange.

A *task* samples *episodes*; a *learner* is shown an episode's examples and makes *predictions*; a *mixer* is the one
mechanism by which a sequence model moves information between positions. Everything registered carries a *card*.

Shapes: batch = episodes, time = examples (or tokens), features = columns, queries = rows asked about, classes = labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, get_args, get_origin, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.errors import InputError

Kind = Literal["classical", "in-context", "online"]
Target = Literal["regression", "classification"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a table: its name, whether it is numeric, and the categories its codes stand for.

    A categorical column's cells are codes 0..len(categories)-1 stored as floats; a missing cell is NaN in both kinds.
    """

    name: str
    kind: Literal["numeric", "categorical"] = "numeric"
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """What the columns of x and the target y mean.

    `target.kind == "categorical"` makes the episode a classification: y holds int64 codes into `target.categories`.
    """

    features: tuple[Column, ...]
    target: Column = Column(name="y")

    @classmethod
    def numeric(cls, num_features: int) -> "Schema":
        """The schema of a synthetic regression: `num_features` numeric columns x1.. and a numeric target y."""
        return cls(features=tuple(Column(name=f"x{i + 1}") for i in range(num_features)))

    @classmethod
    def classes(cls, num_features: int, num_classes: int) -> "Schema":
        """The schema of a synthetic classification with classes named by their code."""
        names = tuple(str(code) for code in range(num_classes))
        target = Column(name="y", kind="categorical", categories=names)
        return cls(features=cls.numeric(num_features).features, target=target)

    @property
    def num_classes(self) -> int:
        """How many classes the target has; 0 for a regression."""
        return len(self.target.categories) if self.target.kind == "categorical" else 0

    @property
    def task(self) -> Target:
        """Whether the target is a number or a class."""
        return "classification" if self.target.kind == "categorical" else "regression"

    @property
    def is_plain(self) -> bool:
        """True if every feature is numeric (cells may still be missing)."""
        return all(column.kind == "numeric" for column in self.features)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """A batch of episodes of labelled examples (x_t, y_t), in the order in which they are shown.

    x: float [batch, time, features]; y: float [batch, time] for a regression, int64 [batch, time] for classes.
    `clean` is the target without its noise, where the task knows it; `latents` are what the task drew to make the
    episode (weights, component, ...), for probes and scores only: no learner may read either.
    """

    x: Float[Tensor, "batch time features"]
    y: Shaped[Tensor, "batch time"]
    schema: Schema
    clean: Float[Tensor, "batch time"] | None = None
    latents: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.x.dim() != 3 or self.y.shape != self.x.shape[:2]:
            raise InputError(
                f"pairs need x [batch, time, features] and y [batch, time], but x is {tuple(self.x.shape)} "
                f"and y is {tuple(self.y.shape)}"
            )
        if self.x.shape[2] != len(self.schema.features):
            raise InputError(f"x has {self.x.shape[2]} features, but its schema names {len(self.schema.features)}")

    @property
    def batch(self) -> int:
        """The number of episodes."""
        return self.x.shape[0]

    @property
    def time(self) -> int:
        """The number of examples in each episode."""
        return self.x.shape[1]

    def prefix(self, length: int) -> "Pairs":
        """The first `length` examples of every episode."""
        clean = None if self.clean is None else self.clean[:, :length]
        return Pairs(x=self.x[:, :length], y=self.y[:, :length], schema=self.schema, clean=clean, latents=self.latents)

    def select(self, episodes: Int[Tensor, " chosen"]) -> "Pairs":
        """The chosen episodes, in the order asked."""
        return Pairs(
            x=self.x[episodes],
            y=self.y[episodes],
            schema=self.schema,
            clean=None if self.clean is None else self.clean[episodes],
            latents={name: value[episodes] for name, value in self.latents.items()},
        )

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Pairs":
        """The same pairs with floating tensors in `dtype` on `device`; class codes stay int64."""
        y = self.y.to(device=device, dtype=dtype if self.y.is_floating_point() else None)
        clean = None if self.clean is None else self.clean.to(device=device, dtype=dtype)
        return Pairs(
            x=self.x.to(device=device, dtype=dtype), y=y, schema=self.schema, clean=clean, latents=self.latents
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """A batch of token sequences with the targets that count.

    ids, targets: int64 [batch, time]; mask: bool [batch, time], True where the target is scored; the target at t is
    predicted from ids up to and including t. `slices` labels scored positions by difficulty, int64 [batch, time].
    """

    ids: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    mask: Shaped[Tensor, "batch time"]
    vocabulary: int
    segments: Int[Tensor, "batch time"] | None = None
    slices: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """The number of sequences."""
        return self.ids.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectories:
    """A batch of interactions, step by step: what was seen, what was done, what came of it.

    observations: [batch, time, features], seen before the action of the same step (no features where there is nothing
    to see); actions: int64 [batch, time]; rewards: [batch, time]; starts: bool [batch, time], True at the first step of
    an episode. `targets`, int64 [batch, time], is what a model is trained to do at each step, seeing what came before.
    `regret` is what the action cost against the best one in expectation, where the environment knows it; `latents` are
    what it drew (means, goals, ...). The three are for scores and training only: no agent may read them.
    """

    observations: Float[Tensor, "batch time features"]
    actions: Int[Tensor, "batch time"]
    rewards: Float[Tensor, "batch time"]
    starts: Shaped[Tensor, "batch time"]
    num_actions: int
    targets: Int[Tensor, "batch time"] | None = None
    regret: Float[Tensor, "batch time"] | None = None
    latents: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.actions.shape
        held = (self.observations.shape[:2], self.rewards.shape, self.starts.shape)
        if self.observations.dim() != 3 or len(shape) != 2 or any(other != shape for other in held):
            raise InputError(
                f"trajectories need observations [batch, time, features] and actions, rewards, starts [batch, time], "
                f"not {tuple(self.observations.shape)}, {tuple(shape)}, {tuple(self.rewards.shape)} and "
                f"{tuple(self.starts.shape)}"
            )

    @property
    def batch(self) -> int:
        """The number of interactions."""
        return self.actions.shape[0]

    @property
    def time(self) -> int:
        """The number of steps of each."""
        return self.actions.shape[1]

    def to(self, *, dtype: torch.dtype) -> "Trajectories":
        """The same steps with observations and rewards in `dtype`."""
        return replace(self, observations=self.observations.to(dtype), rewards=self.rewards.to(dtype))


Episodes = Pairs | Tokens | Trajectories


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a learner says about queries: a regression gives `mean`, a classification gives `probabilities`.

    mean, variance: [batch, queries] (variance includes the noise of a new observation where the learner models it);
    probabilities: [batch, queries, classes], rows summing to one; quantiles: [batch, queries, len(levels)].
    """

    mean: Float[Tensor, "batch queries"] | None = None
    variance: Float[Tensor, "batch queries"] | None = None
    probabilities: Float[Tensor, "batch queries classes"] | None = None
    levels: tuple[float, ...] = ()
    quantiles: Float[Tensor, "batch queries levels"] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) == (self.probabilities is None):
            raise InputError("a prediction holds either a mean (regression) or probabilities (classification)")

    @property
    def value(self) -> Tensor:
        """The mean or the probabilities, whichever the prediction holds."""
        value = self.mean if self.mean is not None else self.probabilities
        assert value is not None
        return value

    def interval(self, level: float) -> tuple[Tensor, Tensor] | None:
        """The central interval that should hold a share `level` of outcomes, or None where no spread is modelled."""
        low, high = (1 - level) / 2, (1 + level) / 2
        if self.quantiles is not None:
            return self._quantile(low), self._quantile(high)
        if self.variance is None or self.mean is None:
            return None
        reach = self.variance.sqrt() * torch.special.ndtri(torch.tensor(high, dtype=torch.float64)).item()
        return self.mean - reach, self.mean + reach

    def _quantile(self, level: float) -> Tensor:
        """Linear interpolation between the stored quantiles, held constant beyond the outermost ones."""
        assert self.quantiles is not None
        above = next((i for i, stored in enumerate(self.levels) if stored >= level), len(self.levels) - 1)
        if above == 0 or self.levels[above] <= level:
            return self.quantiles[..., above]
        below = above - 1
        share = (level - self.levels[below]) / (self.levels[above] - self.levels[below])
        return torch.lerp(self.quantiles[..., below], self.quantiles[..., above], share)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a registered thing says of itself: a unique name, one sentence, and the source in the literature."""

    name: str
    summary: str
    paper: str = ""
    year: int | None = None
    waivers: Mapping[str, str] = field(default_factory=dict)
    """Law name -> the sentence saying why that law does not apply. A waiver that is no longer needed fails."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value, allowed = getattr(self, one.name), get_args(one.type) if get_origin(one.type) is Literal else ()
            if allowed and value not in allowed:
                raise InputError(
                    f"the card of {self.name!r} has {one.name}={value!r}: there are {', '.join(map(str, allowed))}"
                )


@dataclass(frozen=True, kw_only=True)
class LearnerCard(Card):
    """A learner's card.

    prequential: "exact" if `prequential` covers every prefix in one call, "refit" if the learner can only be fitted
    anew at asked sizes. `invariances` name the changes of the input that leave the prediction as it is.
    """

    kind: Kind
    targets: frozenset[Target]
    prequential: Literal["exact", "refit"] = "exact"
    invariances: frozenset[Literal["example-order", "column-order", "label-names"]] = frozenset()
    tables: bool = False
    """True if the learner itself handles categorical columns, missing cells and raw scales."""


@dataclass(frozen=True, kw_only=True)
class MixerCard(Card):
    """A mixer's card: whether it is causal, whether its streaming state grows, and how its cost grows with time."""

    causal: bool = True
    state: Literal["constant", "grows", "none"]
    cost: Literal["linear", "quadratic", "n log n"]


@dataclass(frozen=True, kw_only=True)
class TaskCard(Card):
    """A task's card: what its episodes are and how they are scored.

    metric: the loss of `contexture.evaluation.metrics` by which learners are compared.
    """

    episodes: Literal["pairs", "tokens", "trajectories"]
    metric: Literal["squared-error", "log-loss", "error-rate", "relative-squared-error"]


@dataclass(frozen=True, kw_only=True)
class EnvironmentCard(Card):
    """An environment's card. `family` says which agents can act in it: arms alone, arms with features, or states."""

    family: Literal["arms", "linear-arms", "states", "features"]


@dataclass(frozen=True, kw_only=True)
class AgentCard(Card):
    """An agent's card: how it came about, and the families of environments that it can act in."""

    kind: Kind
    families: frozenset[Literal["arms", "linear-arms", "states", "features"]]


@runtime_checkable
class Learner(Protocol):
    """Shown examples, asked queries. Learners preprocess from their context only."""

    @property
    def card(self) -> LearnerCard:
        """The learner's card; usually a class attribute."""
        ...

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Predict every query after all of the context; an empty context (time 0) is allowed."""
        ...

    def prequential(self, episodes: Pairs) -> Prediction:
        """Predict y_t from x up to t and y before t, for every t at once: [batch, time]."""
        ...


@runtime_checkable
class SequenceLearner(Protocol):
    """A learner over tokens: logits at t depend on ids up to t alone."""

    @property
    def card(self) -> LearnerCard:
        """The learner's card; usually a class attribute."""
        ...

    def logits(
        self, tokens: Int[Tensor, "batch time"], segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """Scores of the target at each position."""
        ...


@runtime_checkable
class Task(Protocol):
    """A distribution over episodes: a frozen dataclass of settings."""

    @property
    def card(self) -> TaskCard:
        """The task's card; usually a class attribute."""
        ...

    @property
    def chance(self) -> float:
        """The metric's value for the best predictor that ignores x and the context."""
        ...

    def sample(self, batch: int, *, generator: torch.Generator) -> Episodes:
        """Draw `batch` episodes; the same generator state gives the same episodes."""
        ...

    def oracle(self) -> Learner | SequenceLearner | None:
        """What is known to be optimal here, or None (a real table has none)."""
        ...

    def baselines(self) -> Mapping[str, Learner | SequenceLearner]:
        """The learners that belong beside any other on this task."""
        ...


class CausalMixer(Protocol):
    """One token-mixing mechanism with one streaming form; in practice a torch.nn.Module.

    Cutting a sequence anywhere and carrying the state gives what `forward` gives. dim 0 of every state tensor is the
    batch; positions are int64 [batch]. `segments` (int [batch, time], -1 is padding) packs sequences: a change of id
    resets state, convolution buffers and positions.
    """

    card: ClassVar[MixerCard]

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Any:
        """The state before any token."""
        ...

    def stream(self, x: Float[Tensor, "batch time width"], state: Any) -> tuple[Tensor, Any]:
        """Mix any number of further tokens (one included): output [batch, time, width] and the new state."""
        ...

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix the whole sequence from an empty state."""
        ...


class SetMixer(Protocol):
    """A mechanism that sees all of a set at once (rows of a table); a causal backbone refuses one."""

    card: ClassVar[MixerCard]

    def forward(
        self,
        x: Float[Tensor, "batch items width"],
        *,
        context: Float[Tensor, "batch others width"] | None = None,
        segments: Int[Tensor, "batch items"] | None = None,
    ) -> Float[Tensor, "batch items width"]:
        """Mix x with itself, or with `context` alone where one is given."""
        ...


class Outcome(NamedTuple):
    """What one step brings: reward [batch], and whether the episode ends with it, bool [batch]."""

    reward: Tensor
    done: Tensor


@runtime_checkable
class Environment(Protocol):
    """A distribution over problems that are acted in, many at once: a frozen dataclass of settings.

    A *world* is a NamedTuple of tensors whose dim 0 is the batch: what was drawn (means, goals), and where each stands.
    Worlds are values: a step returns another one.
    """

    @property
    def card(self) -> EnvironmentCard:
        """The environment's card; usually a class attribute."""
        ...

    @property
    def num_actions(self) -> int:
        """How many actions there are at every step."""
        ...

    @property
    def num_features(self) -> int:
        """The size of an observation; 0 where there is nothing to see."""
        ...

    @property
    def horizon(self) -> int:
        """The most steps of one episode; 1 for bandits, where every pull is an episode."""
        ...

    def begin(self, batch: int, *, generator: torch.Generator) -> Any:
        """Draw `batch` problems and start an episode in each."""
        ...

    def restart(self, world: Any, chosen: Shaped[Tensor, " batch"]) -> Any:
        """Start a new episode of the same problem where `chosen`, bool [batch]."""
        ...

    def observation(self, world: Any) -> Float[Tensor, "batch features"]:
        """What is seen before the next action."""
        ...

    def step(self, world: Any, action: Int[Tensor, " batch"], *, generator: torch.Generator) -> tuple[Outcome, Any]:
        """Act in every world."""
        ...

    def regret(self, world: Any, action: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """What the action gives away in expectation against the best one, both followed by the best behaviour."""
        ...

    def latents(self, world: Any) -> Mapping[str, Tensor]:
        """What was drawn: for scores, labels and oracles only."""
        ...


@runtime_checkable
class Agent(Protocol):
    """What decides what it sees next. What it does at t depends on what came before t, all of which its state holds."""

    @property
    def card(self) -> AgentCard:
        """The agent's card; usually a class attribute."""
        ...

    def begin(self, batch: int, *, generator: torch.Generator) -> Any:
        """The state before anything was seen; `generator` is what the agent draws from when it acts."""
        ...

    def act(
        self, state: Any, observation: Float[Tensor, "batch features"]
    ) -> tuple[torch.distributions.Categorical, Any]:
        """How likely the agent takes each action now."""
        ...

    def observe(
        self, state: Any, action: Int[Tensor, " batch"], reward: Float[Tensor, " batch"], done: Shaped[Tensor, " batch"]
    ) -> Any:
        """Take in what the last action brought, and whether the episode ended with it."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A learner's score at several context sizes, with an interval.

    value, low, high: one number per entry of `context`; n: episodes (or splits) behind each; seconds: time per
    prediction in seconds; state_bytes: what has to be kept between predictions at the largest context.
    """

    name: str
    kind: Kind
    context: tuple[int, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int
    seconds: float
    parameters: int
    state_bytes: int

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)
