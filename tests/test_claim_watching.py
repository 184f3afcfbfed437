"""What claims measure of models that are watched while they learn, and of the reduced model of that learning."""

import torch

from contexture.claims.classification import of_each
from contexture.claims.nested_flows import CONTEXT, FLOWS, LABELS, earlier, flow, reaches, sharpness
from contexture.claims.run import Run
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.tasks.bursty_classification import BurstyClassification


def test_a_number_of_each_model_stands_beside_its_errors() -> None:
    task = BurstyClassification(num_classes=64, num_labels=8, burst=2, fresh=True)
    found, per = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 4.0, 6.0])
    line = torch.tensor([0.5, 1.0])
    samples = of_each(
        Run(), NearestNeighbour(), found, shown=task, per=per, curves=lambda index: {"line": (range(2), index * line)}
    )
    assert samples.values.shape == (3, 512)
    assert samples.per is not None
    assert samples.errors is not None
    assert samples.zero_errors is not None
    assert samples.values[:, 0].tolist() == samples.values[:, -1].tolist() == [1.0, 2.0, 3.0]
    assert samples.per[:, 7].tolist() == [4.0, 4.0, 6.0]
    assert float(samples.errors.mean()) < 0.2
    assert set(samples.zero_errors.flatten().tolist()) == {7 / 8}
    assert samples.curves["line"].y.tolist() == [[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]]
    assert of_each(Run(), NearestNeighbour(), found, shown=task).per is None


def test_a_level_is_reached_at_a_step_or_never() -> None:
    curves = torch.tensor([[0.0, 0.5, 1.0], [0.6, 0.1, 0.9], [0.0, 0.1, 0.2]])
    assert reaches(curves, 0.5).tolist() == [1.0, 0.0, 3.0]


def test_nested_logits_rise_later_but_faster_than_one_alone() -> None:
    chain, alone = sharpness(Run(), alone=False), sharpness(Run(), alone=True)
    assert chain.values.shape == (3, FLOWS)
    assert chain.per is not None
    assert alone.per is not None
    assert float(chain.values.mean() / chain.per.mean()) < 0.4 < float(alone.values.mean() / alone.per.mean())
    assert sharpness(Run(), alone=False, known=True).values.sum() == 0
    assert list(chain.curves) == ["joined to its item", "found by the query", "said, by the chain"]


def test_more_labels_than_a_context_holds_are_found_earlier() -> None:
    same = earlier(Run(), labels=CONTEXT)
    assert torch.equal(same.values, same.per)
    more = earlier(Run(), labels=LABELS)
    assert more.per is not None
    assert float(more.values.mean() / more.per.mean()) < 0.5
    # Three numbers between 0 and 0.2: shares begin near one of eight.
    assert bool((flow(0)[:, 0, 1] < 0.2).all())
