"""Fitted estimators on disk, without pickle: a checkpoint folder with the context, the weights and the settings."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from contexture.errors import CheckpointError, InputError
from contexture.estimators.columns import FrameColumns
from contexture.estimators.in_context import ContextClassifier, ContextRegressor
from contexture.protocols import Column, Pairs, Schema
from contexture.store.checkpoint import read_checkpoint, write_checkpoint

KINDS: dict[str, type[ContextClassifier | ContextRegressor]] = {
    "classifier": ContextClassifier,
    "regressor": ContextRegressor,
}


def save(estimator: ContextClassifier | ContextRegressor, path: str | Path) -> None:
    """Write a fitted estimator as a folder that `load` reads, whole or not at all; classes are numbers or text."""
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    kind = next(name for name, cls in KINDS.items() if type(estimator) is cls)
    context = estimator.context_
    state: dict[str, Any] = {
        "estimator": kind,
        "num_members": estimator.num_members,
        "features": [asdict(column) for column in context.schema.features],
        "target": asdict(context.schema.target),
        "names": list(map(str, getattr(estimator, "feature_names_in_", []))),
        "config": asdict(estimator.fitted_.model.config),
    }
    if isinstance(estimator, ContextClassifier):
        if estimator.classes_.dtype.kind not in "biufUO":
            raise InputError(f"classes of type {estimator.classes_.dtype} cannot be saved: use numbers or text")
        state["classes"] = estimator.classes_.tolist()
        state["class_type"] = estimator.classes_.dtype.str
    tensors = {"context": {"x": context.x[0], "y": context.y[0]}, "model": estimator.fitted_.model.state_dict()}
    write_checkpoint(path, step=0, tensors=tensors, state=state)


def load(path: str | Path) -> ContextClassifier | ContextRegressor:
    """The estimator that `save` wrote, ready to predict; CheckpointError says in one sentence why it is refused."""
    from contexture.learners.table_transformer import TableTransformerLearner
    from contexture.models.table_transformer import TableTransformer, TableTransformerConfig
    from contexture.randomness import generator

    checkpoint = read_checkpoint(path)
    state = checkpoint.state
    if state.get("estimator") not in KINDS:
        raise CheckpointError(f"{path} holds no saved estimator")
    try:
        model = TableTransformer(TableTransformerConfig(**state["config"]), generator=generator("placeholder"))
        model.load_state_dict(checkpoint.expect("model", model.state_dict()))
        features = tuple(_column(each) for each in state["features"])
        x, y = checkpoint.tensors["context"]["x"], checkpoint.tensors["context"]["y"]
        schema = Schema(features=features, target=_column(state["target"]))
        context = Pairs(x=x[None], y=y[None], schema=schema)
    except (KeyError, TypeError, InputError) as error:
        raise CheckpointError(f"the saved estimator {path} does not fit this program: {error}") from error
    estimator = KINDS[state["estimator"]](num_members=state["num_members"])
    estimator.columns_ = FrameColumns(features)
    estimator.n_features_in_ = len(features)
    if state["names"]:
        estimator.feature_names_in_ = np.array(state["names"], dtype=object)
    if isinstance(estimator, ContextClassifier):
        estimator.classes_ = np.array(state["classes"], dtype=np.dtype(state["class_type"]))
    estimator.context_ = context
    learner = TableTransformerLearner(model.eval().requires_grad_(False), num_members=state["num_members"])
    estimator.fitted_ = learner.fit(context)
    return estimator


def _column(document: dict[str, Any]) -> Column:
    return Column(**{**document, "categories": tuple(document["categories"])})
