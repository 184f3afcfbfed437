"""The table transformer and its learner: what may not matter does not, and what is encoded once is what is asked."""

import math
from dataclasses import replace

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.table_transformer import FittedTables, TableTransformerLearner
from contexture.mixers.feature_attention import FeatureAttention
from contexture.mixers.row_attention import RowAttention
from contexture.mixers.set_attention import set_attention
from contexture.models import table_bins, table_encoding
from contexture.models.table_transformer import TableTransformer, TableTransformerConfig, num_tokens
from contexture.protocols import Column, Pairs, Prediction, Schema
from contexture.testing.set_mixers import check_set_mixer

SMALL = TableTransformerConfig(width=16, num_layers=3, num_heads=2, hidden=16, num_thinking=3)


def model(seed: int = 0) -> TableTransformer:
    return TableTransformer(SMALL, generator=torch.Generator().manual_seed(seed))


def table(
    *, classes: int, rows: int = 30, columns: int = 7, seed: int = 0, batch: int = 1
) -> tuple[Pairs, torch.Tensor]:
    """A context with a categorical column and missing cells, and twenty queries."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, rows + 20, columns, generator=source, dtype=torch.float64)
    x[..., -1] = torch.randint(0, 4, x.shape[:2], generator=source).double()
    x[torch.rand(x.shape, generator=source) < 0.1] = math.nan
    schema = Schema.classes(columns, classes) if classes else Schema.numeric(columns)
    category = Column(name="c", kind="categorical", categories=("p", "q", "r", "s"))
    schema = replace(schema, features=(*schema.features[:-1], category))
    if classes:
        y = torch.randint(0, classes, (batch, rows), generator=source)
    else:
        y = 50 + 7 * torch.randn(batch, rows, generator=source, dtype=torch.float64)
    return Pairs(x=x[:, :rows], y=y, schema=schema), x[:, rows:]


def learner(*, members: int = 3) -> TableTransformerLearner:
    return TableTransformerLearner(model(), num_members=members)


def same(left: Prediction, right: Prediction, *, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(left.value, right.value, rtol=0, atol=tolerance)
    if left.quantiles is not None:
        assert right.quantiles is not None
        torch.testing.assert_close(left.quantiles, right.quantiles, rtol=0, atol=tolerance)


@pytest.mark.parametrize("mixer", [FeatureAttention, RowAttention])
def test_the_mixers_keep_the_laws_of_sets(mixer: type) -> None:
    check_set_mixer(mixer)


def test_attention_weighs_values_by_the_softmax_of_the_products() -> None:
    q = torch.tensor([[[1.0, 0.0]]])
    k = torch.tensor([[[math.log(3.0), 5.0], [0.0, -7.0]]])
    v = torch.tensor([[[4.0, 0.0], [0.0, 8.0]]])
    assert set_attention(q, k, v, scale=1.0).flatten().tolist() == pytest.approx([3.0, 2.0])


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 40, 9)])
def test_attention_in_slices_is_the_same(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    sets, queries, members = shape
    q, k, v = (
        torch.randn(sets, rows, 4, generator=torch.Generator().manual_seed(1)) for rows in (queries, members, members)
    )
    whole = set_attention(q, k, v, scale=0.5)
    monkeypatch.setattr("contexture.mixers.set_attention.LARGEST_LOGITS", 50)
    with torch.no_grad():
        torch.testing.assert_close(set_attention(q, k, v, scale=0.5), whole)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_context_encoded_once_predicts_what_the_joint_pass_predicts(classes: int) -> None:
    context, queries = table(classes=classes, batch=2)
    flags = torch.zeros(2, 7, dtype=torch.bool)
    count = torch.full((2,), classes)
    y = context.y.float() if classes else (context.y.float() - 50) / 7
    net = model()
    with torch.no_grad():
        joint = net(torch.cat([context.x, queries], dim=1).float(), y, categorical=flags, num_classes=count)
        cache = net.encode_context(context.x.float(), y, categorical=flags, num_classes=count)
        split = net.predict(cache, queries.float())
    torch.testing.assert_close(split.bin_logits, joint.bin_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(split.class_logits, joint.class_logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [0, 3])
def test_the_order_of_rows_changes_no_bit(classes: int) -> None:
    context, queries = table(classes=classes)
    order = torch.randperm(context.time, generator=torch.Generator().manual_seed(5))
    shuffled = replace(context, x=context.x[:, order], y=context.y[:, order])
    same(learner().predict(shuffled, queries), learner().predict(context, queries))


@pytest.mark.parametrize("classes", [0, 3])
def test_the_order_of_columns_changes_no_bit(classes: int) -> None:
    context, queries = table(classes=classes)
    order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    schema = replace(context.schema, features=tuple(context.schema.features[i] for i in order))
    shuffled = Pairs(x=context.x[..., order], y=context.y, schema=schema)
    same(learner().predict(shuffled, queries[..., order]), learner().predict(context, queries))


def test_the_names_of_classes_do_not_matter() -> None:
    context, queries = table(classes=4)
    renamed = torch.tensor([2, 0, 3, 1])
    expected = learner().predict(context, queries).value
    got = learner().predict(replace(context, y=renamed[context.y]), queries).value
    assert torch.equal(got[..., renamed], expected)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_prediction_does_not_depend_on_the_other_queries(classes: int) -> None:
    context, queries = table(classes=classes)
    fitted = learner().fit(context)
    together = fitted.predict(queries)
    for index in (0, 7, 19):
        alone = fitted.predict(queries[:, index : index + 1])
        torch.testing.assert_close(alone.value[:, 0], together.value[:, index], rtol=1e-7, atol=1e-7)
    many = fitted.predict(queries.repeat(1, 15, 1))
    torch.testing.assert_close(many.value[:, -20:], together.value, rtol=1e-7, atol=1e-7)


def test_episodes_do_not_see_each_other() -> None:
    context, queries = table(classes=0, batch=3)
    alone = learner().predict(context.select(torch.tensor([1])), queries[1:2])
    torch.testing.assert_close(learner().predict(context, queries).value[1:2], alone.value, rtol=0, atol=1e-5)


def test_the_units_of_a_regression_do_not_matter() -> None:
    context, queries = table(classes=0)
    expected = learner().predict(context, queries)
    moved = replace(context, x=context.x * 1e9 + 5e9, y=context.y * 1e6 - 3e6)
    got = learner().predict(moved, queries * 1e9 + 5e9)
    torch.testing.assert_close(got.value, expected.value * 1e6 - 3e6, rtol=1e-4, atol=0)


def test_missing_cells_count_as_missing_and_not_as_a_number() -> None:
    context, queries = table(classes=0)
    gone, mean = queries.clone(), queries.clone()
    gone[..., 0] = math.nan
    mean[..., 0] = context.x[..., 0].nanmean()
    assert not torch.allclose(learner().predict(context, gone).value, learner().predict(context, mean).value)
    everywhere = replace(context, x=torch.full_like(context.x, math.nan))
    assert learner().predict(everywhere, queries).value.isfinite().all()


def test_a_regression_is_a_distribution() -> None:
    context, queries = table(classes=0)
    said = learner().predict(context, queries)
    assert said.quantiles is not None
    assert said.variance is not None
    assert (said.quantiles.diff(dim=-1) >= 0).all()
    assert (said.variance > 0).all()
    low, high = said.interval(0.8) or (torch.tensor(0.0), torch.tensor(0.0))
    assert (low < high).all()


def test_probabilities_sum_to_one_and_an_unseen_class_keeps_a_little() -> None:
    context, queries = table(classes=4)
    context = replace(context, y=context.y.clamp(max=2))
    probabilities = learner().predict(context, queries).value
    torch.testing.assert_close(probabilities.sum(dim=2), torch.ones(1, 20, dtype=torch.float64))
    torch.testing.assert_close(probabilities[..., 3], torch.full((1, 20), 0.5 / 32, dtype=torch.float64))


@pytest.mark.parametrize("classes", [0, 3])
def test_there_is_a_prediction_from_the_first_example_on(classes: int) -> None:
    context, _ = table(classes=classes, rows=4)
    said = learner().prequential(context)
    assert said.value.shape[:2] == (1, 4)
    assert said.value.isfinite().all()


def test_constant_columns_and_a_constant_target_are_taken() -> None:
    context, queries = table(classes=0)
    flat = replace(context, x=torch.full_like(context.x, 3.0), y=torch.full_like(context.y, 8.0))
    said = learner().predict(flat, queries)
    assert said.value.isfinite().all()
    assert ((said.value - 8).abs() < 8).all()


def test_the_bytes_kept_are_counted_from_what_is_kept() -> None:
    context, _ = table(classes=0)
    one, two = TableTransformerLearner(model(), num_members=1), TableTransformerLearner(model(), num_members=2)
    assert two.state_bytes(context) == 2 * one.state_bytes(context)
    rows = 30 + SMALL.num_thinking
    memories = 2 * 4 * SMALL.width * rows * (2 * num_tokens(7) + 1)
    assert one.state_bytes(context) > memories


def test_limits_are_refused_in_one_sentence() -> None:
    wide = Pairs(x=torch.zeros(1, 3, 101), y=torch.zeros(1, 3), schema=Schema.numeric(101))
    with pytest.raises(InputError, match="100 columns, but the table has 101"):
        learner().predict(wide, wide.x)
    many = Pairs(x=torch.zeros(1, 3, 1), y=torch.zeros(1, 3, dtype=torch.int64), schema=Schema.classes(1, 11))
    with pytest.raises(InputError, match="at most 10 classes apart"):
        learner().predict(many, many.x)
    context, queries = table(classes=0)
    with pytest.raises(InputError, match="infinite"):
        learner().predict(replace(context, x=context.x.nan_to_num(nan=math.inf)), queries)
    long = Pairs(x=torch.zeros(1, 20_001, 1), y=torch.zeros(1, 20_001), schema=Schema.numeric(1))
    with pytest.raises(InputError, match="20001 rows of 1 columns"):
        learner().predict(long, long.x[:, :1])


def test_memory_is_estimated_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    context, queries = table(classes=0)
    monkeypatch.setattr("contexture.learners.table_transformer._free_memory", lambda: 1e6)
    with pytest.raises(InputError, match="GiB for 30 rows of 7 columns"):
        learner().predict(context, queries)


def test_more_rows_than_usual_are_warned_of() -> None:
    context, queries = table(classes=0, rows=1_001, columns=2)
    with pytest.warns(UserWarning, match="1001 rows take about"):
        assert isinstance(learner(members=1).fit(context), FittedTables)
    assert queries.shape[1] == 20


def test_ranks_and_scores_use_the_context_alone() -> None:
    context = torch.tensor([[[1.0], [2.0], [2.0], [math.nan], [5.0]]])
    statistics = table_encoding.measure_columns(context)
    asked = torch.tensor([[[0.0], [2.0], [3.0], [9.0]]])
    assert table_encoding.ranks(asked, statistics).flatten().tolist() == pytest.approx([-1.0, 0.0, 0.5, 1.0])
    assert table_encoding.z_scores(asked, statistics).flatten()[1].item() == pytest.approx(-0.5 / 1.5)


def test_quantiles_are_the_inverse_of_the_distribution() -> None:
    borders = table_bins.bin_borders()
    normal = torch.special.ndtr(torch.cat([borders, torch.tensor([math.inf])])).diff(prepend=torch.zeros(1))
    levels = torch.tensor([0.025, 0.1, 0.5, 0.9, 0.975])
    got = table_bins.bin_quantiles(normal[None, None], levels).flatten()
    torch.testing.assert_close(got, torch.special.ndtri(levels.double()), rtol=0, atol=2e-3)
    mean, variance = table_bins.bin_moments(normal[None, None])
    assert mean.item() == pytest.approx(0.0, abs=1e-9)
    assert variance.item() == pytest.approx(1.0, abs=5e-3)


def test_pages_that_hold_copies_of_files_count_as_free_memory(tmp_path):
    from contexture.learners.table_transformer import _free_memory

    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24000000 kB\nMemFree:          100000 kB\nMemAvailable:   20000000 kB\n")
    assert _free_memory(meminfo) == 1024 * 20_000_000
    meminfo.write_text("MemTotal:       24000000 kB\n")
    assert _free_memory(meminfo) == float("inf")
    assert _free_memory(tmp_path / "absent") == float("inf")
