"""The laws of learners; which apply follows from the card.

| law | what it holds |
|---|---|
| card | the card is complete, its waivers name laws, and a kind of target that it does not claim is refused |
| empty context | before any example a finite prediction exists |
| distribution | probabilities are not negative and sum to one, variances are positive, quantiles do not cross |
| order | `prequential` is `predict` on every prefix; y at t or later and x after t change nothing at t |
| queries | a query's prediction does not depend on the other queries |
| episodes | an episode's prediction does not depend on the other episodes, nor on where it stands |
| seed | the same call gives the same bits, whatever the state of the global generators |
| inputs | what the learner is shown is left as it was |
| example-order, column-order, label-names | what the card claims: such a change leaves predictions as they were |
| tables | where claimed: any cell may be missing or of an unseen category, and a column's unit does not matter |

Token learners (`SequenceLearner`) have laws of their own in `contexture.testing.sequence_learners`.
Differences are held to 1e-10 of the targets' scale, for trained networks (fp32) to 1e-5.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from contexture.errors import InputError, told
from contexture.protocols import Learner, LearnerCard, Pairs, Schema, SequenceLearner, Target
from contexture.testing.agreement import agree
from contexture.testing.errors import LawError
from contexture.testing.laws import run_laws
from contexture.testing.learner_cases import (
    REFIT_TIME,
    LearnerCase,
    as_table,
    build,
    fields,
    other_episodes,
    other_future,
    other_rows,
)
from contexture.testing.sequence_learners import check_sequence_learner

TOLERANCE, TRAINED_TOLERANCE = 1e-10, 1e-5
UNIT = 1024.0
"""A change of unit that is exact in floating point."""
TARGETS: tuple[Target, ...] = ("regression", "classification")


@dataclass(frozen=True, slots=True)
class Trial:
    """A learner and the cases on which it is tried."""

    learner: Learner
    cases: tuple[LearnerCase, ...]
    num_features: int

    @property
    def card(self) -> LearnerCard:
        """The learner's card."""
        return self.learner.card


def check_learner(
    learner: Learner | SequenceLearner,
    *,
    targets: Iterable[Target] | None = None,
    num_features: int = 3,
    tolerance: float | None = None,
    laws: tuple[str, ...] = (),
) -> None:
    """Raise LawError, naming the law and where it broke, unless the learner keeps every law that its card implies.

    targets: kinds of target to try, of those on the card (all if None); num_features: of the episodes shown;
    tolerance: 1e-10, or 1e-5 for a learner of the kind "in-context", if None; laws: these alone.
    A waiver on the card lets a law be broken, and has to be needed.

    >>> from contexture.learners.classical.ridge import Ridge
    >>> check_learner(Ridge(penalty=0.1))
    """
    if isinstance(learner, SequenceLearner):
        check_sequence_learner(learner, laws=laws)
        return
    card = learner.card
    if tolerance is None:
        tolerance = TRAINED_TOLERANCE if card.kind == "in-context" else TOLERANCE
    cases = []
    for target in TARGETS:
        if target in card.targets and (targets is None or target in set(targets)):
            plain = build(target, num_features)
            cases += [LearnerCase(learner=learner, episodes=plain, tolerance=tolerance)]
            if card.tables:
                cases += [LearnerCase(learner=learner, episodes=as_table(plain), tolerance=tolerance)]
    run_laws(laws_for(card), Trial(learner, tuple(cases), num_features), waivers=card.waivers, only=laws)


def laws_for(card: LearnerCard) -> dict[str, Callable[[Trial], None]]:
    """The laws that a card implies, by name, in the order in which they are tried."""
    claimed = {*card.invariances, *(("tables",) if card.tables else ())}
    over_cases = ALWAYS | {name: law for name, law in CLAIMED.items() if name in claimed}
    return {"card": _card} | {name: _over_cases(name, law) for name, law in over_cases.items()}


def _over_cases(name: str, law: Callable[[LearnerCase], None]) -> Callable[[Trial], None]:
    def over(trial: Trial) -> None:
        for case in trial.cases:
            try:
                law(case)
            except LawError:
                raise
            except Exception as error:
                raise LawError(name, f"{case.what} fails with {told(error)}") from error

    return over


def _card(trial: Trial) -> None:
    card = trial.card
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", card.name):
        raise LawError("card", f"the name {card.name!r} is not lower-case words joined by hyphens")
    if not card.summary or not card.targets or not card.targets <= set(TARGETS):
        raise LawError("card", f"{card.name} needs a summary and targets out of {', '.join(TARGETS)}")
    if unreasoned := [name for name, reason in card.waivers.items() if not reason.strip()]:
        raise LawError("card", f"the waivers of {', '.join(unreasoned)} give no reason")
    if "label-names" in card.invariances and "classification" not in card.targets:
        raise LawError("card", f"{card.name} claims label-names, but does no classification")
    for target in TARGETS:
        if target not in card.targets:
            _refuses(trial.learner, build(target, trial.num_features))


def _refuses(learner: Learner, episodes: Pairs) -> None:
    target = episodes.schema.task
    calls: tuple[Callable[[], object], ...] = (
        lambda: learner.predict(episodes.prefix(5), episodes.x[:, 5:]),
        lambda: learner.prequential(episodes.prefix(5)),
    )
    for call in calls:
        try:
            call()
        except InputError:
            continue
        raise LawError("card", f"{learner.card.name} does not claim {target}, but does not refuse it with InputError")


def _empty_context(case: LearnerCase) -> None:
    for name, value in case.answer(context=case.episodes.prefix(0)).items():
        if value.shape[:2] != case.queries.shape[:2]:
            raise LawError("empty context", f"{case.what}: {name} has the shape {tuple(value.shape)}")
        _all_finite("empty context", "the prediction before any example", {name: value})
    _all_finite("empty context", "the first prediction", case.along(case.episodes.prefix(1)))


def _distribution(case: LearnerCase) -> None:
    for said in (case.answer(), case.along(), case.answer(context=case.episodes.prefix(0))):
        expected = "probabilities" if case.episodes.schema.num_classes else "mean"
        if expected not in said:
            raise LawError("distribution", f"{case.what} has no {expected}")
        _all_finite("distribution", "the prediction", said)
        if "probabilities" in said:
            chances = said["probabilities"]
            _all_hold("distribution", "a probability is negative", chances >= 0)
            short = (chances.sum(-1) - 1).abs() <= max(1e-10, case.tolerance)
            _all_hold("distribution", "probabilities do not sum to one", short)
        if "variance" in said:
            _all_hold("distribution", "a variance is not positive", said["variance"] > 0)
        if "quantiles" in said:
            _all_hold("distribution", "quantiles cross", said["quantiles"].diff(dim=-1) >= 0)


def _order(case: LearnerCase) -> None:
    exact = case.card.prequential == "exact"
    episodes = case.episodes if exact else case.episodes.prefix(REFIT_TIME)
    before = fields(case.learner.prequential(episodes))
    expected = case.one_by_one(episodes, list(range(episodes.time)))
    _same(case, "order", "prequential, against predict on every prefix,", before, expected)
    for t in range(episodes.time):
        after = fields(case.learner.prequential(other_future(episodes, t)))
        past = {name: value[:, : t + 1] for name, value in after.items()}
        kept = {name: value[:, : t + 1] for name, value in before.items()}
        _same(case, "order", f"the prediction up to {t}, with other y from {t} and other x after {t},", past, kept)


def _queries(case: LearnerCase) -> None:
    together = case.answer()
    count = case.queries.shape[1]
    alone = [case.answer(queries=case.queries[:, i : i + 1]) for i in range(count)]
    joined = {name: torch.cat([one[name] for one in alone], dim=1) for name in alone[0]}
    _same(case, "queries", "the prediction of queries asked together, against one by one,", together, joined)
    far = other_rows(replace(case.episodes, x=case.queries, y=case.episodes.y[:, :count], clean=None))
    among = case.answer(queries=torch.cat([far, case.queries, far], dim=1))
    kept = {name: value[:, count:-count] for name, value in among.items()}
    _same(case, "queries", "the prediction of queries asked among others", kept, together)


def _episodes(case: LearnerCase) -> None:
    batch = torch.arange(case.episodes.batch)
    predicts: list[Callable[[Pairs], dict[str, Tensor]]] = [
        lambda shown: case.answer(context=shown.prefix(shown.time - 2), queries=shown.x[:, -2:])
    ]
    for predict in predicts + ([case.along] if case.card.prequential == "exact" else []):
        together = predict(case.episodes)
        turned = predict(case.episodes.select(batch.flip(0)))
        back = {name: value.flip(0) for name, value in turned.items()}
        _same(case, "episodes", "the prediction with the episodes in another order", back, together)
        for b in range(case.episodes.batch):
            expected = {name: value[b : b + 1] for name, value in together.items()}
            alone = predict(case.episodes.select(batch[b : b + 1]))
            _same(case, "episodes", f"the prediction of episode {b} alone", alone, expected)
            among = predict(other_episodes(case.episodes, b))
            kept = {name: value[b : b + 1] for name, value in among.items()}
            _same(case, "episodes", f"the prediction of episode {b} among other episodes", kept, expected)


def _seed(case: LearnerCase) -> None:
    said = []
    numpy_state = np.random.get_state()  # noqa: NPY002 - the global generator is what a learner must not read
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            said.append(case.answer() | {f"{name} along": value for name, value in case.along().items()})
    np.random.set_state(numpy_state)  # noqa: NPY002
    for name, first in said[0].items():
        _all_hold("seed", f"{case.what}: {name} differs between two equal calls", first == said[1][name])


def _inputs(case: LearnerCase) -> None:
    shown = {"x": case.context.x.clone(), "y": case.context.y.clone(), "queries": case.queries.clone()}
    context = replace(case.context, x=shown["x"], y=shown["y"])
    case.answer(context=context, queries=shown["queries"])
    _unchanged("predict", shown, {"x": case.context.x, "y": case.context.y, "queries": case.queries})
    shown = {"x": case.episodes.x.clone(), "y": case.episodes.y.clone()}
    case.along(replace(case.episodes, x=shown["x"], y=shown["y"]))
    _unchanged("prequential", shown, {"x": case.episodes.x, "y": case.episodes.y})


def _unchanged(call: str, after: dict[str, Tensor], before: dict[str, Tensor]) -> None:
    for name, value in before.items():
        same = (after[name] == value) | (after[name].isnan() & value.isnan())
        _all_hold("inputs", f"{call} changed the {name} that it was shown", same)


def _example_order(case: LearnerCase) -> None:
    context = case.context
    for turned in (torch.arange(context.time).flip(0), torch.arange(context.time).roll(3)):
        shuffled = replace(context, x=context.x[:, turned], y=context.y[:, turned])
        _same(
            case, "example-order", "the prediction, examples reordered,", case.answer(context=shuffled), case.answer()
        )


def _column_order(case: LearnerCase) -> None:
    context, order = case.context, torch.arange(case.episodes.x.shape[2]).roll(1)
    schema = replace(context.schema, features=tuple(context.schema.features[int(j)] for j in order))
    turned = replace(context, x=context.x[..., order], schema=schema)
    after = case.answer(context=turned, queries=case.queries[..., order])
    _same(case, "column-order", "the prediction, columns reordered,", after, case.answer())


def _label_names(case: LearnerCase) -> None:
    if not case.episodes.schema.num_classes:
        return
    context, expected = case.context, case.answer()
    named = replace(context.schema.target, categories=("zebra", "ant", "mole"))
    renamed = replace(context, schema=Schema(features=context.schema.features, target=named))
    _same(case, "label-names", "the prediction, labels renamed,", case.answer(context=renamed), expected)
    codes = torch.arange(context.schema.num_classes).roll(1)
    after = case.answer(context=replace(context, y=codes[context.y]))["probabilities"][..., codes]
    _same(case, "label-names", "the prediction, labels recoded,", {"probabilities": after}, expected)


def _tables(case: LearnerCase) -> None:
    if case.episodes.schema.is_plain:
        return
    queries = case.queries.clone()
    queries[:, 0] = torch.nan
    queries[:, 1, -1] = len(case.episodes.schema.features[-1].categories) - 1
    _all_finite("tables", "the prediction of a row of gaps", case.answer(queries=queries))
    scaled = UNIT * case.context.x
    rescaled = UNIT * case.queries
    scaled[..., -1], rescaled[..., -1] = case.context.x[..., -1], case.queries[..., -1]
    after = case.answer(context=replace(case.context, x=scaled), queries=rescaled)
    _same(case, "tables", "the prediction, columns in another unit,", after, case.answer())


ALWAYS: dict[str, Callable[[LearnerCase], None]] = {
    "empty context": _empty_context,
    "distribution": _distribution,
    "order": _order,
    "queries": _queries,
    "episodes": _episodes,
    "seed": _seed,
    "inputs": _inputs,
}
CLAIMED: dict[str, Callable[[LearnerCase], None]] = {
    "example-order": _example_order,
    "column-order": _column_order,
    "label-names": _label_names,
    "tables": _tables,
}


def _same(case: LearnerCase, law: str, what: str, got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if got.keys() != expected.keys():
        raise LawError(law, f"{case.what}: {what} has {', '.join(got)}, not {', '.join(expected)}")
    for name, value in expected.items():
        agree(law, f"{case.what}: {what} {name}", got[name], value, tolerance=case.tolerance, scale=1.0)


def _all_finite(law: str, what: str, said: dict[str, Tensor]) -> None:
    for name, value in said.items():
        _all_hold(law, f"{what} has a {name} that is not finite", value.isfinite())


def _all_hold(law: str, message: str, holds: Tensor) -> None:
    if not bool(holds.all()):
        first = (~holds).nonzero()[0]
        raise LawError(law, message, position=tuple(int(index) for index in first))
