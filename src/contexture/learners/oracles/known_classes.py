r"""The label of an item whose class is one of several that are known: what weights can hold, and no context adds to.

    p(label | x) = sum of p(k | x) over the classes k of that label,    p(k | x) ~ share_k N(x; c mean_k, c^2 s^2 / d)

with c^2 = 1 / (1 + s^2): items are drawn around their means and scaled as in
`contexture.tasks.bursty_classification`. Exact where the items of a context are drawn independently; otherwise as good
as exact while classes lie further apart than their items.

Legend: C = classes, D = features; x [batch, time, D].
"""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import classes, numeric
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KnownClasses:
    """Probabilities of labels by the posterior over known classes; the examples shown are not looked at.

    >>> learner = KnownClasses(means=torch.eye(2), labels=torch.tensor([1, 0]), shares=torch.ones(2), spread=0.1)
    >>> learner.labelled(torch.tensor([[[1.0, 0.0]]]), num_labels=2).argmax(-1).item()
    1
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="known-classes",
        summary="The label of the class, among known ones, that an item most likely belongs to.",
        paper="Reddy: The mechanistic basis of data dependence and abrupt learning, arXiv:2312.03002",
        year=2023,
        kind="classical",
        targets=frozenset({"classification"}),
        invariances=frozenset({"example-order"}),
    )

    means: Float[Tensor, "classes features"] = field(default_factory=lambda: torch.eye(3))
    labels: Int[Tensor, " classes"] = field(default_factory=lambda: torch.arange(3))
    shares: Float[Tensor, " classes"] = field(default_factory=lambda: torch.ones(3))
    spread: float = 0.1

    def __post_init__(self) -> None:
        if not len(self.means) == len(self.labels) == len(self.shares):
            raise InputError("known classes need a mean, a label and a share each")
        if not self.spread > 0:
            raise InputError(f"the spread of items around their means must be positive, not {self.spread:g}")

    @classmethod
    def example(cls) -> Self:
        """Three classes with a label each."""
        return cls()

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The posterior at every query."""
        classes(self.card, context)
        queries = numeric(self.card, context.schema, queries)
        return Prediction(probabilities=self.labelled(queries, num_labels=context.schema.num_classes))

    def prequential(self, episodes: Pairs) -> Prediction:
        """The posterior at every item."""
        return self.predict(episodes, episodes.x)

    def labelled(
        self, x: Float[Tensor, "batch time features"], *, num_labels: int
    ) -> Float[Tensor, "batch time labels"]:
        """Posterior probabilities of the labels."""
        means, shares = self.means.to(x), self.shares.to(x)
        if x.shape[-1] != means.shape[1] or int(self.labels.max()) >= num_labels:
            raise InputError(
                f"the known classes lie in {means.shape[1]} dimensions under {int(self.labels.max()) + 1} labels, "
                f"not in {x.shape[-1]} under {num_labels}"
            )
        scale = 1 + self.spread**2
        away = torch.cdist(x, means / scale**0.5, compute_mode="donot_use_mm_for_euclid_dist").square()
        scores = shares.log() - away * scale * x.shape[-1] / (2 * self.spread**2)
        owner = torch.nn.functional.one_hot(self.labels.to(x.device), num_labels).to(x)
        said: Tensor = scores.softmax(-1) @ owner
        return said / said.sum(-1, keepdim=True)
