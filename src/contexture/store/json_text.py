"""Strict JSON that gives back every Python number bit for bit, and names what it cannot hold.

Floats are written with their shortest exact decimal form. JSON has no token for the three values that are not finite;
where they are allowed, they are written as {"$float": "nan"}, {"$float": "inf"} and {"$float": "-inf"}.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from contexture.errors import InputError

_TAG = "$float"


def dumps(value: Any, *, what: str, finite: bool = False, indent: int | None = None) -> str:
    """Return `value` as JSON text; tuples become lists.

    Raises InputError, naming `what` and the key, for what JSON cannot hold and, if `finite`, for NaN and infinity.

    >>> dumps({"loss": float("nan"), "rate": 0.1}, what="a line")
    '{"loss":{"$float":"nan"},"rate":0.1}'
    """
    separators = (",", ":") if indent is None else (",", ": ")
    plain = _plain(value, what, "", finite)
    return json.dumps(plain, allow_nan=False, indent=indent, separators=separators)


def loads(text: str | bytes) -> Any:
    """Return what `dumps` wrote; raises ValueError for anything that is not strict JSON.

    >>> loads('{"loss":{"$float":"-inf"}}')
    {'loss': -inf}
    """
    return json.loads(text, object_hook=_untag, parse_constant=_refuse)


def _plain(value: Any, what: str, place: str, finite: bool) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        if finite:
            raise InputError(f"{what} holds {value}{_at(place)}: only finite numbers can be written")
        return {_TAG: repr(float(value))}
    if isinstance(value, list | tuple):
        return [_plain(item, what, f"{place}[{index}]", finite) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_key(key, what, place): _plain(item, what, f"{place}.{key}", finite) for key, item in value.items()}
    raise InputError(f"{what} holds a {type(value).__name__}{_at(place)}, which JSON cannot hold")


def _key(key: Any, what: str, place: str) -> str:
    if not isinstance(key, str) or key == _TAG:
        raise InputError(f"{what} has the key {key!r}{_at(place)}: keys are strings, and {_TAG!r} is taken")
    return key


def _at(place: str) -> str:
    return f" at {place.removeprefix('.')}" if place else ""


def _untag(item: dict[str, Any]) -> Any:
    return float(item[_TAG]) if item.keys() == {_TAG} else item


def _refuse(token: str) -> None:
    raise ValueError(f"{token} is not JSON")
