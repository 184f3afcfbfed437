"""The runs whose weights ship with the package, as functions that return their configuration."""

from collections.abc import Callable, Mapping

from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModelConfig
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig


def linear_regression(*, seed: int = 0) -> TrainingConfig:
    """A transformer that regresses in its forward pass: linear-regression with 8 features, noise 0.5, 25 points.

    Interleaved x and y tokens, learned and rotary positions, six softmax layers of width 64; the loss is the squared
    error against the noisy y at every position.
    """
    backbone = BackboneConfig(
        pattern="softmax*6", width=64, num_heads=4, feed_forward="relu", positions="learned", max_length=50
    )
    return TrainingConfig(
        task=TaskChoice(name="linear-regression", settings={"num_features": 8, "num_points": 25, "noise": 0.5}),
        model=PairsModelConfig(num_features=8, backbone=backbone),
        optimiser=OptimiserConfig(name="muon", rate=2e-3, matrix_rate=0.02),
        schedule=ScheduleConfig(shape="linear", warm_up=100, hold=0.5),
        steps=4000,
        batch=128,
        block=64,
        seed=seed,
        precision="auto",
        evaluate_every=200,
        checkpoint_every=200,
    )


RECIPES: Mapping[str, Callable[..., TrainingConfig]] = {"linear-regression": linear_regression}
