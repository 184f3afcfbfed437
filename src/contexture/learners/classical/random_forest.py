"""A random forest: the mean of trees grown on resampled examples, each split looking at a few random columns.

Breiman (2001), Random forests; scikit-learn's implementation. Categories enter by their codes, missing cells as such.
Shapes: x [batch, time, features]; y [batch, time].
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from contexture.learners.classical.refitted import RefittedLearner
from contexture.protocols import LearnerCard, Schema


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomForest(RefittedLearner):
    """scikit-learn's random forest, grown anew for every context with the same seed.

    `smallest_leaf` is the least number of examples in a leaf.
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="random-forest",
        summary="The mean of many trees grown on resampled examples.",
        paper="Breiman, Random forests",
        year=2001,
        kind="classical",
        targets=frozenset({"regression", "classification"}),
        prequential="refit",
        tables=True,
    )

    num_trees: int = 100
    smallest_leaf: int = 1
    seed: int = 0

    @classmethod
    def example(cls) -> "RandomForest":
        """A few trees, for the laws."""
        return cls(num_trees=3)

    def model(self, schema: Schema) -> Any:
        """An unfitted forest."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        forest = RandomForestClassifier if schema.task == "classification" else RandomForestRegressor
        return forest(
            n_estimators=self.num_trees, min_samples_leaf=self.smallest_leaf, random_state=self.seed, n_jobs=1
        )
