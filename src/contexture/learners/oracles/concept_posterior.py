"""The posterior over a finite class of concepts: optimal where concepts have a prior and x may hint at the concept.

    p(c | examples, x)  ~  p(c) p(x | c) prod_s p(x_s | c) [c(x_s) = y_s];    p(y = 1 | x, examples) = sum of it on c(x)

Where x is drawn without regard to the concept and all concepts are alike, this is the vote of the version space.

Legend: batch = episodes, time = examples, rows = examples or queries, concepts = members of the class.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import ClassVar, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import blocks, classification, numeric
from contexture.learners.oracles.version_space import MOST_CONCEPTS
from contexture.protocols import LearnerCard, Pairs, Prediction, Schema


class WeighedConcepts(Protocol):
    """A finite class of functions from x to true or false, with a prior and what each says of where x lies."""

    def count(self, num_features: int) -> int:
        """How many concepts there are."""
        ...

    def log_prior(self, num_features: int) -> Float[Tensor, " concepts"]:
        """log p(c), up to a constant."""
        ...

    def values(self, x: Float[Tensor, "batch rows features"]) -> Bool[Tensor, "batch rows concepts"]:
        """What each concept says of each row."""
        ...

    def log_inputs(self, x: Float[Tensor, "batch rows features"]) -> Float[Tensor, "batch rows #concepts"]:
        """log p(x | c), up to what does not depend on the concept."""
        ...


@lru_cache(maxsize=16)
def ternary(num_features: int) -> Float[Tensor, "concepts features"]:
    """All vectors over -1, 0, 1.

    >>> ternary(1).tolist()
    [[-1.0], [0.0], [1.0]]
    """
    return torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=num_features)), dtype=torch.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conjunctions:
    """All conjunctions of literals, each variable present with probability `present`, as `tasks.conjunction` draws.

    A share `forced` of the inputs is rewritten to satisfy the conjunction. `negated` makes it the class of
    disjunctions, whose inputs are rewritten to falsify them.

    >>> Conjunctions().values(torch.tensor([[[1.0]]])).tolist()
    [[[False, True, True]]]
    """

    present: float = 0.3
    forced: float = 0.3
    negated: bool = False

    def count(self, num_features: int) -> int:
        """3^d."""
        return int(3**num_features)

    def log_prior(self, num_features: int) -> Float[Tensor, " concepts"]:
        """A variable is positive, negated, absent with probability present / 2, present / 2, 1 - present."""
        size = ternary(num_features).abs().sum(1)
        return size * math.log(self.present / 2) + (num_features - size) * math.log(1 - self.present)

    def values(self, x: Float[Tensor, "batch rows features"]) -> Bool[Tensor, "batch rows concepts"]:
        """Conjunctions hold where no literal is violated; a disjunction is false where its negation holds."""
        held = self._hold(x)
        return ~held if self.negated else held

    def log_inputs(self, x: Float[Tensor, "batch rows features"]) -> Float[Tensor, "batch rows concepts"]:
        """log (1 - forced + forced 2^k) where x satisfies the k literals, log (1 - forced) elsewhere."""
        size = ternary(x.shape[-1]).abs().sum(1).to(x.device)
        likely = self._hold(x).double() * self.forced * 2.0**size
        return (1 - self.forced + likely).log()

    def _hold(self, x: Tensor) -> Tensor:
        literals = ternary(x.shape[-1]).to(x.device)
        if self.negated:
            literals = -literals
        signs = torch.where(x < 0, -1.0, 1.0).to(torch.float64)
        return signs @ literals.T == literals.abs().sum(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """All w.x + b > 0 with w over -1, 0, 1 and b over -2.5, -1.5, .., 2.5; a weight is present with `present`.

    >>> Thresholds().count(2)
    54
    """

    present: float = 0.3

    def count(self, num_features: int) -> int:
        """3^d weights with six offsets."""
        return 6 * int(3**num_features)

    def log_prior(self, num_features: int) -> Float[Tensor, " concepts"]:
        """That of the weights: offsets are alike."""
        return Conjunctions(present=self.present).log_prior(num_features).repeat_interleave(6)

    def values(self, x: Float[Tensor, "batch rows features"]) -> Bool[Tensor, "batch rows concepts"]:
        """Weights in lexicographic order, offsets rising for each."""
        sums = x.to(torch.float64) @ ternary(x.shape[-1]).to(x.device).T
        offsets = torch.arange(6, device=x.device, dtype=torch.float64) - 2.5
        return (sums.unsqueeze(-1) + offsets > 0).flatten(-2)

    def log_inputs(self, x: Float[Tensor, "batch rows features"]) -> Float[Tensor, "batch rows one"]:
        """Inputs do not depend on the concept."""
        return x.new_zeros(*x.shape[:2], 1, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConceptPosterior:
    """Probabilities of the classes 0 and 1; all classes alike where no concept agrees with the examples."""

    card: ClassVar[LearnerCard] = LearnerCard(
        name="concept-posterior",
        summary="The posterior over a finite class of concepts, by default conjunctions, and what inputs say of them.",
        paper="Haussler, Kearns, Schapire: Bounds on the sample complexity of Bayesian learning",
        year=1994,
        kind="classical",
        targets=frozenset({"classification"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    concepts: WeighedConcepts = field(default_factory=Conjunctions)

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Every query after all of the context; a query's own x counts, the others' do not."""
        queries = numeric(self.card, context.schema, queries)
        x, y = classification(self.card, context)
        prior = self._prior(context.schema).to(x.device)
        out = queries.new_empty(*queries.shape[:2], context.schema.num_classes)
        for rows in blocks(x.shape[0], self._numbers(x.shape[1] + queries.shape[1], x.shape[2])):
            seen = prior + self._log_likelihood(x[rows], y[rows]).sum(1, keepdim=True)
            asked = queries[rows]
            out[rows] = _shares(seen + self.concepts.log_inputs(asked), self.concepts.values(asked), out.shape[2])
        return Prediction(probabilities=out)

    def prequential(self, episodes: Pairs) -> Prediction:
        """Every t after what came before, and its own x."""
        x, y = classification(self.card, episodes)
        prior = self._prior(episodes.schema).to(x.device)
        out = x.new_empty(*y.shape, episodes.schema.num_classes)
        for rows in blocks(x.shape[0], self._numbers(x.shape[1], x.shape[2])):
            likelihood = self._log_likelihood(x[rows], y[rows])
            # Minus infinity less itself is no number, so what came before is shifted rather than subtracted.
            before = torch.cat((torch.zeros_like(likelihood[:, :1]), likelihood[:, :-1].cumsum(1)), 1)
            seen = prior + before + self.concepts.log_inputs(x[rows])
            out[rows] = _shares(seen, self.concepts.values(x[rows]), out.shape[2])
        return Prediction(probabilities=out)

    def _log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        agrees = self.concepts.values(x) == (y == 1).unsqueeze(-1)
        agrees &= (y < 2).unsqueeze(-1)
        return torch.where(agrees, self.concepts.log_inputs(x), -torch.inf)

    def _numbers(self, num_rows: int, num_features: int) -> int:
        return num_rows * self.concepts.count(num_features)

    def _prior(self, schema: Schema) -> Tensor:
        num_features = len(schema.features)
        if schema.num_classes < 2:
            raise InputError(f"{self.card.name} tells classes apart, but the target has {schema.num_classes}")
        count = self.concepts.count(num_features)
        if count > MOST_CONCEPTS:
            raise InputError(
                f"{self.card.name} enumerates at most {MOST_CONCEPTS} concepts, but {num_features} features have "
                f"{count}: use fewer features"
            )
        return self.concepts.log_prior(num_features)


def _shares(
    log_weights: Float[Tensor, "batch rows concepts"], values: Bool[Tensor, "batch rows concepts"], num_classes: int
) -> Float[Tensor, "batch rows classes"]:
    """The weights of concepts that say false and true; classes beyond two have none."""
    most = log_weights.amax(-1, keepdim=True)
    weights = (log_weights - torch.where(most.isfinite(), most, 0)).exp()
    total = weights.sum(-1)
    share = (weights * values).sum(-1) / torch.where(total > 0, total, 1)
    out = share.new_zeros(*share.shape, num_classes)
    out[..., 0], out[..., 1] = 1 - share, share
    return torch.where((total > 0).unsqueeze(-1), out, 1 / num_classes)
