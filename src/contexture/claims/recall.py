"""Small models over tokens that claims train to recall: one for each seed, as a cohort, and how often they are right.

    two layers, each a norm, the mixer and a shortcut ─▶ training on multi-query recall ─▶ accuracy of each sequence

The model is that of the recall ladder, after Arora et al. 2024: there is no feed-forward network, so that what a
position learns of others, it learns by the mixer.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.models.backbone import BackboneConfig
from contexture.models.tokens import TokenModel, TokenModelConfig
from contexture.protocols import SequenceLearner, Tokens
from contexture.tasks.mqar import MQAR
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.schedule import ScheduleConfig

SMOKE_STEPS = 10
BATCH = 32


def train_recall(
    run: Run,
    pattern: str,
    *,
    task: MQAR,
    num_steps: int,
    width: int = 32,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    rate: float = 0.03,
) -> list[TokenModel]:
    """A model for each seed, trained with Muon at `rate` and AdamW at a tenth of it.

    At smoke scale ten steps are taken, whatever `num_steps` is.
    """
    num_steps = SMOKE_STEPS if run.scale == "smoke" else num_steps
    run.settings["training"] = f"{num_steps} steps of {BATCH} sequences, Muon at {rate:g}"
    backbone = BackboneConfig(
        pattern=pattern,
        width=width,
        num_heads=2,
        positions="learned",
        max_length=task.length,
        settings=dict(settings or {}),
    )
    chosen = {"vocabulary": task.vocabulary, "length": task.length, "num_pairs": task.num_pairs}
    configs = [
        TrainingConfig(
            task=TaskChoice(name="mqar", settings=chosen),
            model=TokenModelConfig(vocabulary=task.vocabulary, backbone=backbone),
            optimiser=OptimiserConfig(name="muon", matrix_rate=rate, rate=rate / 10, weight_decay=0.1),
            schedule=ScheduleConfig(shape="cosine", warm_up=min(50, num_steps)),
            steps=num_steps,
            batch=BATCH,
            block=BATCH,
            seed=seed,
            checkpoint_every=num_steps,
            evaluate_every=num_steps,
            evaluation_episodes=BATCH,
        )
        for seed in run.seeds
    ]
    return [model for model in run.train(configs) if isinstance(model, TokenModel)]


@torch.no_grad()
def recalled(run: Run, models: list[TokenModel] | SequenceLearner, task: MQAR, name: str) -> Samples:
    """The share of each sequence's values that are recalled, beside that of one constant answer.

    A learner in place of the models is the reference, usually the task's oracle. The curve is the accuracy over the
    number of tokens between a key and its query, in quarters of the task's length.
    """
    sequences = run.setting("sequences", smoke=16, cpu=256)

    def one(seed: int) -> OneSeed:
        drawn = task.sample(sequences, generator=run.generator(seed, "recall"))
        assert isinstance(drawn, Tokens)
        said = models[run.seeds.index(seed)](drawn.ids) if isinstance(models, list) else models.logits(drawn.ids)
        hits = ((said.argmax(-1) == drawn.targets) & drawn.mask).double()
        share = hits.sum(1) / drawn.mask.sum(1)
        ends = [task.length * quarter // 4 for quarter in range(5)]
        gap = drawn.slices["gap"]
        near = [drawn.mask & (gap > low) & (gap <= high) for low, high in pairwise(ends)]
        curve = torch.stack([hits[place].mean() if place.any() else hits.new_tensor(0.0) for place in near])
        return OneSeed(
            values=share,
            errors=1 - share,
            zero_errors=torch.full_like(share, task.chance),
            curves={name: (ends[1:], curve)},
        )

    return over_seeds(run, one)
