"""The tables that come with scikit-learn, read from its own files without a network, as datasets."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from contexture.errors import InputError
from contexture.tables import Dataset, Table, table_dataset

__all__ = ["BUNDLED", "bundled_dataset"]

BUNDLED: Mapping[str, str] = MappingProxyType(
    {
        "diabetes": "Progression of diabetes after a year from 10 measurements of 442 patients (Efron et al. 2004).",
        "breast-cancer": "Malignant or benign from 30 measurements of cell nuclei, 569 patients (Street et al. 1993).",
        "wine": "The cultivar of 178 wines from 13 chemical measurements (Aeberhard et al. 1992).",
        "iris": "The species of 150 irises from 4 lengths (Fisher 1936).",
        "digits": "Which digit 1,797 handwritten images of 8 x 8 pixels show (Alpaydin and Kaynak 1998).",
    }
)


@cache
def bundled_dataset(name: str) -> Dataset:
    """Return one of the bundled tables, in the units in which it was measured; InputError lists what there is.

    >>> data = bundled_dataset("iris")
    >>> data.x.shape, data.classes
    ((150, 4), ('setosa', 'versicolor', 'virginica'))
    """
    if name not in BUNDLED:
        raise InputError(f"no table named {name!r} is bundled: there are {', '.join(BUNDLED)}")
    from sklearn import datasets

    options: dict[str, Any] = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name.replace('-', '_')}")(**options)
    features = [[repr(float(value)) for value in column] for column in bunch.data.T]
    labels = bunch.get("target_names")
    target = [str(labels[code]) if labels is not None else repr(float(code)) for code in bunch.target]
    names = [str(feature) for feature in bunch.feature_names]
    table = Table.from_columns([*names, "target"], [*features, target], source=name)
    return table_dataset(table, target="target")
