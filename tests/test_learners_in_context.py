"""A trained model as a learner: order, dtype, states, and episodes that it was not made for."""

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.in_context import InContext
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.models.state import state_bytes
from contexture.protocols import Pairs, Schema


def learner(**changes):
    backbone = BackboneConfig(pattern="delta-rule softmax", width=16, num_heads=2)
    config = PairsModelConfig(**{"num_features": 3, "backbone": backbone, **changes})
    return InContext(PairsModel(config, generator=torch.Generator().manual_seed(0)), name="mine")


def episodes(num_classes=0, batch=3, time=8, features=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, time, features, generator=generator, dtype=torch.float64)
    if num_classes:
        y = torch.randint(num_classes, (batch, time), generator=generator)
        return Pairs(x=x, y=y, schema=Schema.classes(features, num_classes))
    return Pairs(x=x, y=x.sum(-1), schema=Schema.numeric(features))


@pytest.mark.parametrize("num_classes", [0, 3])
def test_predict_is_prequential_on_every_prefix(num_classes):
    one, pairs = learner(num_classes=num_classes), episodes(num_classes)
    whole = one.prequential(pairs).value
    assert whole.dtype == torch.float64
    for t in range(pairs.time):
        asked = one.predict(pairs.prefix(t), pairs.x[:, t : t + 1]).value[:, 0]
        torch.testing.assert_close(asked, whole[:, t], rtol=1e-5, atol=1e-5)


def test_classes_have_probabilities_and_gaussians_a_variance():
    probabilities = learner(num_classes=3).prequential(episodes(3)).probabilities
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3, 8, dtype=torch.float64))
    prediction = learner(head="gaussian").prequential(episodes())
    assert (prediction.variance > 0).all()
    low, high = prediction.interval(0.8)
    assert (low < high).all()


def test_queries_in_blocks_are_queries_at_once(monkeypatch):
    one, pairs = learner(), episodes(time=20)
    expected = one.predict(pairs.prefix(9), pairs.x[:, 9:]).mean
    monkeypatch.setattr("contexture.learners.in_context.READ_BYTES", 1)
    torch.testing.assert_close(one.predict(pairs.prefix(9), pairs.x[:, 9:]).mean, expected, rtol=1e-5, atol=1e-5)


def test_the_state_grows_with_the_keys_of_one_layer():
    one, pairs = learner(), episodes(batch=1)
    sizes = [state_bytes(one.state(pairs.prefix(length))) for length in (0, 1, 2, 8)]
    token = 2 * 16 * 4
    assert [size - sizes[0] for size in sizes[1:]] == [2 * token, 4 * token, 16 * token]


def test_fewer_features_are_padded_and_more_are_refused():
    one = learner()
    narrow = episodes(features=2)
    padded = Pairs(x=torch.nn.functional.pad(narrow.x, (0, 1)), y=narrow.y, schema=Schema.numeric(3))
    assert torch.equal(one.prequential(narrow).mean, one.prequential(padded).mean)
    with pytest.raises(InputError, match="mine was made for at most 3 features, but the episodes have 4"):
        one.prequential(episodes(features=4))


def test_other_targets_are_refused():
    with pytest.raises(InputError, match="was made for a regression"):
        learner().prequential(episodes(3))
    with pytest.raises(InputError, match="a classification of at most 3 classes"):
        learner(num_classes=3).prequential(episodes(4))
    with pytest.raises(InputError, match="a classification of at most 3 classes"):
        learner(num_classes=3).prequential(episodes())


def test_the_card_says_what_the_model_is_for():
    assert learner().card.name == "mine"
    assert learner().card.targets == {"regression"}
    assert InContext.example().card.name == "in-context"
    assert InContext.card.targets == {"regression", "classification"}
