"""What shows how learning in context emerges: items in bursts, induction heads, models watched while they train."""

import math

import pytest
import torch

from contexture.claims.classification import configurations
from contexture.claims.models import ModelCache
from contexture.claims.run import Run
from contexture.claims.watched import Watched, watch
from contexture.errors import InputError
from contexture.learners.oracles.attribute_posterior import AttributePosterior, attribute_values
from contexture.learners.oracles.known_classes import KnownClasses
from contexture.models.backbone import BackboneConfig
from contexture.models.induction import InductionModel, InductionModelConfig
from contexture.models.match_and_copy import match_and_copy
from contexture.models.nested_logits import nested_flow
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.probes.attention import attention_weights
from contexture.probes.classes import ClassProbe
from contexture.probes.induction_head import induction_strength, to_matching_labels, to_own_item
from contexture.protocols import Pairs, Schema
from contexture.tasks.bursty_classification import BurstyClassification
from contexture.tasks.hidden_attribute import HiddenAttribute
from contexture.tasks.projected_digits import ProjectedDigits, images
from contexture.training.cohort import stack, unstack


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_class_of_a_context_comes_in_its_burst_and_the_last_item_is_of_one_of_them() -> None:
    drawn = BurstyClassification(num_classes=4096, burst=4).sample(50, generator=seeded())
    for classes in drawn.latents["classes"]:
        values, counts = classes[:8].unique(return_counts=True)
        assert set(counts.tolist()) <= {4, 8}
        assert classes[8] in values
    assert torch.equal(drawn.y, drawn.latents["classes"] % 8)


def test_zipf_s_law_makes_the_first_class_twice_as_frequent_as_the_second() -> None:
    shares = BurstyClassification(num_classes=8, skew=1.0).shares
    assert shares[0] / shares[1] == pytest.approx(2.0)
    assert shares.sum() == pytest.approx(1.0)


def test_fresh_classes_have_labels_of_their_own_in_every_context() -> None:
    task = BurstyClassification(fresh=True, spread=0.01)
    drawn = task.sample(200, generator=seeded())
    said = task.oracle().prequential(drawn).probabilities
    assert (said.argmax(-1) == drawn.y)[:, -1].all()
    same = drawn.latents["classes"][:, :1] == drawn.latents["classes"]
    assert (drawn.y[:, :1] == drawn.y)[same].all()


def test_a_burst_has_to_fill_the_context() -> None:
    with pytest.raises(InputError, match="3 times each"):
        BurstyClassification(burst=3)


def test_known_classes_weigh_how_near_and_how_frequent_a_class_is() -> None:
    means = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    learner = KnownClasses(means=means, labels=torch.tensor([0, 1]), shares=torch.tensor([3.0, 1.0]), spread=1.0)
    middle = torch.tensor([[[2.0 / 2**0.5 / 2]]], dtype=torch.float64)
    torch.testing.assert_close(
        learner.labelled(middle, num_labels=2), torch.tensor([[[0.75, 0.25]]], dtype=torch.float64)
    )


def hand() -> torch.Tensor:
    """Three examples; the last item, token 4, looks at the labels of the first and of the second."""
    weights = torch.zeros(1, 1, 6, 6)
    for row, places in enumerate([{0: 1.0}, {0: 0.8, 1: 0.2}, {0: 1.0}, {2: 0.4, 0: 0.6}, {1: 0.5, 3: 0.3, 4: 0.2}]):
        for place, weight in places.items():
            weights[0, 0, row, place] = weight
    weights[0, 0, 5, 5] = 1.0
    return weights


def test_parts_of_an_induction_head_are_read_from_weights() -> None:
    classes = torch.tensor([[5, 7, 5]])
    assert to_own_item(hand()).item() == pytest.approx(0.6)
    assert to_matching_labels(hand(), classes).item() == pytest.approx(0.5)
    assert induction_strength(hand(), classes).item() == pytest.approx((0.5 - 0.2) / 0.8)


def test_attention_weights_are_those_that_the_model_uses() -> None:
    backbone = BackboneConfig(pattern="softmax+none softmax", width=8, num_heads=2)
    model = PairsModel(PairsModelConfig(num_features=16, num_classes=8, backbone=backbone), generator=seeded())
    drawn = BurstyClassification().sample(3, generator=seeded(1))
    first, last = attention_weights(model, drawn)
    assert first.shape == last.shape == (3, 2, 18, 18)
    torch.testing.assert_close(first.sum(-1), torch.ones(3, 2, 18))
    arrived: list[torch.Tensor] = []
    mixer = model.backbone.blocks[0].steps[0].mixer
    hook = mixer.register_forward_hook(lambda own, given, left: arrived.extend((given[0], left)))
    model(drawn.x.float(), drawn.y)
    hook.remove()
    values = mixer.projection(arrived[0]).view(3, 18, 3, 2, 4)[:, :, 2]
    out = mixer.output(torch.einsum("bhts,bshd->bthd", first, values).flatten(2))
    torch.testing.assert_close(out.detach(), arrived[1].detach())


def induction_model(seed: int = 0) -> InductionModel:
    return InductionModel(InductionModelConfig(num_features=16, num_classes=8), generator=seeded(seed))


def test_two_large_parameters_make_an_induction_head_and_zeros_make_none() -> None:
    drawn = BurstyClassification(fresh=True).sample(50, generator=seeded())
    same = (drawn.latents["classes"][:, :-1] == drawn.latents["classes"][:, -1:]).float()
    model, x = induction_model(), drawn.x.float()
    torch.testing.assert_close(model.attention(x)[:, -1, :8], torch.full((50, 8), 1 / 8))
    with torch.no_grad():
        model.joining.weight.fill_(40.0)
        model.matching.weight.fill_(40.0)
    assert (model.attention(x)[:, -1, :8] * same).sum(1).min() > 0.99


def test_a_label_that_has_not_been_shown_changes_no_answer() -> None:
    drawn = BurstyClassification().sample(4, generator=seeded())
    model, y = induction_model(), drawn.y.clone()
    y[:, 5:] = (y[:, 5:] + 1) % 8
    one, other = model(drawn.x.float(), drawn.y).logits, model(drawn.x.float(), y).logits
    assert torch.equal(one[:, :6], other[:, :6])
    assert not torch.equal(one[:, 6:], other[:, 6:])


def test_an_induction_head_in_a_cohort_is_what_it_is_alone() -> None:
    drawn = BurstyClassification().sample(4, generator=seeded())
    models = [induction_model(seed) for seed in range(2)]
    with torch.no_grad():
        models[1].joining.weight.fill_(3.0)
    both = stack(models)(drawn.x.float().repeat(2, 1, 1), drawn.y.repeat(2, 1)).logits
    torch.testing.assert_close(both[4:], models[1](drawn.x.float(), drawn.y).logits)
    assert unstack(stack(models), 1).joining.weight.item() == 3.0


def test_the_reduced_model_begins_at_chance_and_its_parts_grow_in_turn() -> None:
    path = nested_flow(torch.full((1, 3), 0.1), num_items=8, num_labels=32, rate=0.5, steps=300)[0]
    joined, found, said = ((column > 0.5).int().argmax().item() for column in path.T)
    assert path[0, 2] == pytest.approx(1 / 32, rel=0.1)
    assert 0 < joined <= found <= said
    alone = nested_flow(torch.zeros(1, 3), num_items=8, num_labels=32, rate=0.5, steps=2, alone=True)[0]
    assert alone[0, 2] == pytest.approx(1 / 32)
    g = 0.5 * 31 / 32
    assert alone[1, 2] == pytest.approx(math.exp(g) / (math.exp(g) + 31))


def test_watched_models_are_those_of_plain_training_and_what_was_seen_is_kept(tmp_path) -> None:
    run = Run(models=ModelCache(tmp_path))
    config = InductionModelConfig(num_features=16, num_classes=8)
    made = configurations(run, BurstyClassification(), config, num_steps=9, rate=1e-2)
    calls = []

    def look(models):
        calls.append(len(models))
        return {"joining": torch.cat([model.joining.weight.detach() for model in models])}

    found = watch(run, made, kind=InductionModel, every=1, look=look)
    again = watch(run, made, kind=InductionModel, every=1, look=look)
    assert calls == [3, 3, 3, 3]
    assert found.steps == (0, 1, 2, 3)
    assert torch.equal(found.seen["joining"], again.seen["joining"])
    assert found.seen["joining"][:, 0].abs().max() == 0
    for model, plain in zip(found.models, run.train(made), strict=True):
        assert torch.equal(model.joining.weight, plain.joining.weight)
        assert torch.equal(model.joining.weight, found.seen["joining"][run.seeds[found.models.index(model)], -1:])


def test_a_level_is_reached_between_two_marks() -> None:
    seen = {"x": torch.tensor([[0.0, 0.2, 0.6], [0.0, 0.0, 0.1]])}
    found = Watched(models=[], steps=(0, 10, 20), seen=seen)
    assert found.first("x", 0.4).tolist() == pytest.approx([15.0, 35.0])


def test_the_posterior_over_attributes_drops_those_that_do_not_fit() -> None:
    learner = AttributePosterior(num_attributes=2, num_values=2, codes=attribute_values(2, 2).double())
    x = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    shown = Pairs(x=x, y=torch.tensor([[1, 0, 1]]), schema=Schema.classes(2, 2))
    said = learner.prequential(shown).probabilities
    torch.testing.assert_close(said[0], torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(learner.attributes(shown)[0, 2], torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_labels_name_the_values_of_the_hidden_attribute() -> None:
    drawn = HiddenAttribute().sample(20, generator=seeded())
    for values, attribute, y in zip(drawn.latents["values"], drawn.latents["attribute"], drawn.y, strict=True):
        same = values[:, attribute, None] == values[:, attribute]
        assert torch.equal(same, y[:, None] == y)


def test_items_that_look_like_their_attributes_share_entries_and_arbitrary_ones_do_not() -> None:
    plain, arbitrary = (HiddenAttribute(look=look).codes for look in ("attributes", "arbitrary"))
    assert (plain[0] @ plain.T).unique().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert len((arbitrary[0] @ arbitrary.T).round(decimals=6).unique()) == 64
    with pytest.raises(InputError, match="'round'"):
        HiddenAttribute(look="round")


def test_matching_and_copying_finds_the_attribute_that_counts() -> None:
    task = HiddenAttribute(num_attributes=3, num_values=3, num_points=11, look="attributes")
    drawn = task.sample(400, generator=seeded())
    hits = {
        weighs: (match_and_copy(3, 3, weighs=weighs)(drawn.x, drawn.y[:, :-1]).argmax(1) == drawn.y[:, -1])
        for weighs in (True, False)
    }
    assert hits[True].double().mean() > 0.95
    assert hits[False].double().mean() < 0.85


def test_a_linear_probe_reads_classes_that_lie_apart_and_no_parity() -> None:
    h = torch.randn(2000, 3, generator=seeded())
    apart, parity = (h[:, 0] > 0.5).long(), (h[:, 0] * h[:, 1] > 0).long()
    for classes, low, high in ((apart, 0.95, 1.0), (parity, 0.4, 0.6)):
        probe = ClassProbe.fit(h[:1000], classes[:1000], num_classes=2)
        assert low <= (probe(h[1000:]) == classes[1000:]).double().mean() <= high


def test_projected_digits_are_known_images_under_one_permutation() -> None:
    drawn = ProjectedDigits(num_tasks=1).sample(5, generator=seeded())
    for digit in range(4):
        assert len(drawn.y[drawn.latents["digits"] == digit].unique()) == 1
    fresh = ProjectedDigits().sample(64, generator=seeded())
    labels = [fresh.y[row][fresh.latents["digits"][row] == 0] for row in range(64)]
    assert len(torch.cat(labels).unique()) == 4
    assert all(len(own.unique()) <= 1 for own in labels)


def test_a_bias_of_one_keeps_the_digits_own_labels() -> None:
    drawn = ProjectedDigits(bias=1.0).sample(8, generator=seeded())
    assert torch.equal(drawn.y, drawn.latents["digits"])


def test_held_out_images_are_not_among_those_of_the_training() -> None:
    shown, apart = images(10, False), images(10, True)
    assert len(shown.digits) + len(apart.digits) == 1797
    assert torch.cdist(apart.pixels, shown.pixels).min() > 0
    assert shown.pixels.mean().abs() < 1e-12
    assert shown.pixels.square().mean() == pytest.approx(1.0)
