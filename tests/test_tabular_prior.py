"""The prior over tables: the same generator gives the same tables, and each mechanism does what its file says."""

import pytest
import torch
from torch import Tensor

from contexture.tasks.tabular_prior import (
    TableBatch,
    TabularPrior,
    corruption,
    covariates,
    draws,
    linear,
    networks,
    prior,
    targets,
    trees,
)
from contexture.tasks.tabular_prior.prototypes import class_conditional, prototype_scores


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(seed: int = 0, *, batch: int = 14, columns: int = 9, settings: TabularPrior | None = None) -> TableBatch:
    return (settings or TabularPrior()).sample(
        batch, num_context=40, num_queries=24, num_columns=columns, generator=source(seed)
    )


def test_the_same_generator_gives_the_same_tables() -> None:
    first, again, other = sample(3), sample(3), sample(4)
    assert torch.equal(first.x.nan_to_num(nan=-9e9), again.x.nan_to_num(nan=-9e9))
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.y, other.y)


@pytest.mark.parametrize("columns", [1, 2, 9, 60])
@pytest.mark.parametrize("seed", range(3))
def test_tables_are_well_formed(columns: int, seed: int) -> None:
    batch = sample(seed, columns=columns)
    assert batch.x.shape == (14, 64, columns)
    assert not batch.x.isinf().any()
    assert batch.y.isfinite().all()
    for table in range(14):
        classes = int(batch.num_classes[table])
        if classes:
            assert batch.y[table].unique().tolist() == [
                code for code in range(classes) if (batch.y[table] == code).any()
            ]
    codes = batch.x.transpose(1, 2)[batch.categorical]
    known = codes[~codes.isnan()]
    assert torch.equal(known, known.round())
    assert ((known >= 0) & (known < 16)).all()


def test_every_kind_of_table_turns_up() -> None:
    batches = [sample(seed) for seed in range(20)]
    counts = torch.cat([batch.num_classes for batch in batches]).bincount(minlength=11)
    assert counts[1] == 0
    assert (counts[[0, *range(2, 11)]] > 0).all()
    assert 0.3 < counts[0] / counts.sum() < 0.6
    assert any(batch.x.isnan().any() for batch in batches)
    assert any(batch.categorical.any() for batch in batches)


def test_minorities_of_two_in_a_hundred_turn_up_and_no_smaller_are_asked_for() -> None:
    shares = targets.class_shares(2_000, 2, generator=source())
    assert shares.min() == pytest.approx(0.02, abs=0.005)
    assert (shares.amin(dim=1) > 0.4).float().mean() > 0.2


def test_shapes_stay_within_the_settings() -> None:
    settings = TabularPrior()
    generator = source()
    shapes = torch.tensor([settings.sample_shape(generator=generator) for _ in range(3_000)])
    assert shapes[:, 0].min() >= 12
    assert 400 < shapes[:, 0].max() <= 600
    assert shapes[:, 2].min() == 1
    assert 20 < shapes[:, 2].max() <= 60
    assert 0.1 < (shapes[:, 2] > 20).float().mean() < 0.2


@pytest.mark.parametrize("name", list(prior.MECHANISMS))
@pytest.mark.parametrize("columns", [1, 5])
def test_scores_are_standardised_functions_of_the_columns(name: str, columns: int) -> None:
    x = draws.normal(3, 200, columns, generator=source(1))
    x[:, 100:] = x[:, :100]
    scores: Tensor = prior.MECHANISMS[name][0](x, 2, generator=source(2))
    assert scores.shape == (3, 200, 2)
    torch.testing.assert_close(scores[:, 100:], scores[:, :100])
    torch.testing.assert_close(scores.mean(dim=1), torch.zeros(3, 2), rtol=0, atol=1e-5)
    assert scores.isfinite().all()


def test_a_linear_score_is_linear() -> None:
    x = draws.normal(2, 100, 4, generator=source())
    score = linear.linear_scores(x, 1, generator=source(1))
    design = torch.cat([x, torch.ones(2, 100, 1)], dim=2)
    fitted = design @ torch.linalg.lstsq(design, score).solution
    torch.testing.assert_close(fitted, score, rtol=0, atol=1e-4)


def test_a_tree_has_as_many_values_as_leaves() -> None:
    x = draws.normal(2, 500, 3, generator=source())
    for leaves in (trees.oblivious_leaves, trees.deep_leaves):
        leaf = leaves(x, 3, generator=source(5))
        assert leaf.min() >= 0
        assert 4 <= int(leaf.max()) <= 7


def test_a_deep_tree_asks_questions_that_split_its_nodes() -> None:
    leaf = trees.deep_leaves(draws.normal(40, 200, 6, generator=source()), 4, generator=source(1))
    occupied = torch.stack([(leaf == code).any(dim=1) for code in range(16)]).float().mean()
    assert occupied > 0.6


def test_smooth_scores_vary_little_between_neighbours() -> None:
    x = torch.linspace(-2, 2, 400).view(1, 400, 1)
    score = networks.fourier_scores(x, 1, generator=source(3))
    assert score.diff(dim=1).abs().max() < 0.3


def test_prototypes_and_classes_shape_the_columns() -> None:
    x = draws.normal(1, 300, 2, generator=source())
    assert prototype_scores(x, 1, generator=source(2)).unique().numel() <= 300
    label = torch.arange(300).view(1, 300) % 3
    rows = class_conditional(label, 3, 5, generator=source(11))
    assert rows.shape == (1, 300, 5)
    assert rows.isfinite().all()


def test_a_causal_target_is_told_by_its_columns() -> None:
    x, y = covariates.causal_graph(8, 400, 30, num_targets=1, generator=source(4))
    design = torch.cat([x, x.square(), torch.ones(8, 400, 1)], dim=2)
    fitted = design @ torch.linalg.lstsq(design, y).solution
    assert ((y - fitted).square().mean(dim=1) < 0.7).float().mean() > 0.5


def test_categories_carry_the_latent_value_and_hide_its_order() -> None:
    x = draws.normal(4, 300, 6, generator=source())
    latent, codes, chosen = corruption.categorise(x, share=1.0, generator=source(1))
    assert chosen.all()
    for column in range(6):
        pairs = torch.stack([latent[0, :, column], codes[0, :, column].float()], dim=1).unique(dim=0)
        assert len(pairs) == codes[0, :, column].unique().numel()
    untouched, _, none = corruption.categorise(x, share=0.0, generator=source(1))
    assert not none.any()
    assert torch.equal(untouched, x)


def test_missing_cells_and_outliers_are_few() -> None:
    x = draws.normal(20, 200, 8, generator=source())
    share = torch.stack(
        [corruption.remove_cells(x, generator=source(seed)).isnan().float().mean() for seed in range(8)]
    )
    assert (share > 0).all()
    assert (share < 0.4).all()
    blown = corruption.add_outliers(x, generator=source(2))
    assert 0 < (blown != x).float().mean() < 0.01


def test_a_warp_keeps_the_order_of_cells() -> None:
    x = draws.normal(5, 200, 10, generator=source()).sort(dim=1).values
    assert (corruption.warp(x, generator=source(1)).diff(dim=1) >= 0).all()


def test_regression_targets_are_skewed_and_noisy_now_and_then() -> None:
    scores = draws.standardise(draws.normal(200, 300, 2, generator=source()))
    y = torch.cat([targets.regression_target(scores[i : i + 1], generator=source(i)) for i in range(200)])
    standard = draws.standardise(y)
    skewness = standard.pow(3).mean(dim=1)
    assert (skewness.abs() > 1).float().mean() > 0.1
    assert (skewness.abs() < 0.5).float().mean() > 0.3
    agreement = (standard * scores[..., 0]).mean(dim=1)
    assert (agreement > 0.95).any()
    assert (agreement < 0.75).any()
