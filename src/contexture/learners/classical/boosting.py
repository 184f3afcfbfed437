"""Gradient boosting of trees on binned columns: each tree is fitted to what the earlier ones leave.

Friedman (2001), Greedy function approximation; Ke et al. (2017) for the histograms; scikit-learn's implementation, with
categories and missing cells as such. Shapes: x [batch, time, features]; y [batch, time].
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from contexture.learners.classical.refitted import RefittedLearner
from contexture.protocols import LearnerCard, Schema

MOST_CATEGORIES = 255
"""Columns with more categories than a histogram has bins are read by the categories' codes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Boosting(RefittedLearner):
    """scikit-learn's histogram gradient boosting, fitted anew for every context with the same seed.

    `smallest_leaf` is the least number of examples in a leaf; below twice that many examples it predicts the mean, or
    the class shares.
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="boosting",
        summary="Gradient boosting of trees on binned columns.",
        paper="Friedman, Greedy function approximation: a gradient boosting machine",
        year=2001,
        kind="classical",
        targets=frozenset({"regression", "classification"}),
        prequential="refit",
        tables=True,
    )

    num_trees: int = 100
    rate: float = 0.1
    smallest_leaf: int = 5
    seed: int = 0

    @classmethod
    def example(cls) -> "Boosting":
        """A few trees, for the laws."""
        return cls(num_trees=5)

    def model(self, schema: Schema) -> Any:
        """An unfitted booster."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        boosting = HistGradientBoostingClassifier if schema.task == "classification" else HistGradientBoostingRegressor
        binned = [c.kind == "categorical" and len(c.categories) <= MOST_CATEGORIES for c in schema.features]
        return boosting(
            max_iter=self.num_trees,
            learning_rate=self.rate,
            min_samples_leaf=self.smallest_leaf,
            categorical_features=binned if any(binned) else None,
            early_stopping=False,
            random_state=self.seed,
        )
