"""Training runs as functions that return their configuration: those whose weights ship, and modest ones for tasks."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from contexture.models.backbone import BackboneConfig
from contexture.models.decisions import DecisionModelConfig
from contexture.models.pairs import PairsModelConfig
from contexture.models.tokens import TokenModelConfig
from contexture.protocols import Episodes, Pairs, Tokens, Trajectories
from contexture.randomness import generator
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


def gaussian_bandit(*, seed: int = 0) -> TrainingConfig:
    """A decision-pretrained transformer for 5 arms with means U(0, 1) and noise 0.3, over up to 200 pulls.

    Two softmax layers of width 32 with more heads than there are arms, and no positions, as the order of pulls tells
    nothing. Worlds are drawn on the fly.
    """
    task = {"environment": "gaussian-bandit", "steps": 200, "shortest": 16}
    return TrainingConfig(
        task=TaskChoice(name="decision-pretraining", settings=task),
        model=DecisionModelConfig(num_actions=5, backbone=_unordered()),
        optimiser=OptimiserConfig(name="muon", rate=2e-3, matrix_rate=0.02),
        schedule=ScheduleConfig(shape="linear", warm_up=50, hold=0.5),
        steps=3000,
        batch=32,
        block=32,
        seed=seed,
        evaluate_every=250,
        evaluation_episodes=32,
        checkpoint_every=50,
    )


def darkroom(*, seed: int = 0) -> TrainingConfig:
    """A decision-pretrained transformer for darkrooms of 9 by 9 cells whose goal is one of 73.

    Its histories are those of Q-learning, one episode in ten of eighty, sixteen times over in each of 73 worlds; the
    targets are best actions. Two softmax layers of width 32 without positions, so that it can act on past 160 steps.
    """
    histories = {"settings": {"goals": "train"}, "worlds": 73, "repeats": 16, "episodes": 80}
    task = {"histories": histories, "every": 10, "targets": "best"}
    backbone = replace(_unordered(), num_heads=4)
    return replace(
        gaussian_bandit(seed=seed),
        task=TaskChoice(name="learning-histories", settings=task),
        model=DecisionModelConfig(num_actions=5, num_features=2, backbone=backbone),
        steps=1000,
        batch=16,
        block=16,
        checkpoint_every=250,
    )


def over_pairs(task: TaskChoice) -> TrainingConfig:
    """A modest run on a registered task over pairs: four layers of width 64, 2,000 steps of AdamW."""
    drawn = _drawn(task)
    assert isinstance(drawn, Pairs)
    model = PairsModelConfig(
        num_features=drawn.x.shape[2],
        num_classes=drawn.schema.num_classes,
        backbone=BackboneConfig(max_length=2 * drawn.time),
    )
    return TrainingConfig(task=task, model=model, steps=2000)


def over_trajectories(task: TaskChoice) -> TrainingConfig:
    """A modest run on a registered task over trajectories: two layers of width 32, 3,000 steps of Muon."""
    drawn = _drawn(task)
    assert isinstance(drawn, Trajectories)
    features = drawn.observations.shape[2]
    # What follows what matters where there is something to see; the order of pulls of a bandit tells nothing.
    backbone = replace(_unordered(), settings={}) if features else _unordered()
    model = DecisionModelConfig(num_actions=drawn.num_actions, num_features=features, backbone=backbone)
    return replace(gaussian_bandit(), task=task, model=model)


def _unordered() -> BackboneConfig:
    """Two softmax layers of width 32 with many heads, without positions."""
    return BackboneConfig(
        pattern="softmax*2",
        width=32,
        num_heads=8,
        feed_forward="relu",
        settings={"softmax": {"positions": "none"}},
    )


def over_tokens(task: TaskChoice) -> TrainingConfig:
    """A modest run on a registered task over tokens: two layers of width 64 without feed-forward networks, Muon.

    The model is that of the recall ladder, after Arora et al. 2024: what a position learns of others, it learns by the
    mixer alone.
    """
    drawn = _drawn(task)
    assert isinstance(drawn, Tokens)
    backbone = BackboneConfig(
        pattern="softmax+none*2",
        num_heads=2,
        positions="learned",
        max_length=drawn.ids.shape[1],
    )
    return TrainingConfig(
        task=task,
        model=TokenModelConfig(vocabulary=drawn.vocabulary, backbone=backbone),
        optimiser=OptimiserConfig(name="muon", rate=3e-3, matrix_rate=0.03),
        schedule=ScheduleConfig(warm_up=50),
        steps=1000,
        batch=32,
    )


def _drawn(task: TaskChoice) -> Episodes:
    """One episode, for its shapes."""
    return task.build().sample(1, generator=generator("shape"))


RECIPES: Mapping[str, Callable[..., TrainingConfig]] = {
    "linear-regression": linear_regression,
    "gaussian-bandit": gaussian_bandit,
    "darkroom": darkroom,
}
