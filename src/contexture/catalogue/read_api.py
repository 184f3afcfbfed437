"""The collection for programs, read only, as JSON.

    /api/papers             {"papers": [brief, ...], "total": n}
    /api/papers/KEY         one paper: its entry, its claims and what was measured
    /api/mixers             {"mixers": [{"name", "summary", "source", "year", "facts", "papers"}, ...]}
    /api/search?q=WORDS     as /api/papers, in the order of the search; facets as on the front page (&family=mixers)
    /api/schema.json        JSON Schema (2020-12) of all of them

Where something is amiss the answer is {"error": "one sentence"} with its status.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from contexture.catalogue.entry import FAMILIES
from contexture.catalogue.export import to_json
from contexture.catalogue.library import STATUSES, VERDICTS, Library, Record
from contexture.catalogue.query import Query
from contexture.catalogue.search import Search

_BRIEF = ("key", "title", "year", "arxiv", "family", "status", "verdicts", "sentence", "mixers", "tasks", "learners")


def papers(records: Iterable[Record]) -> dict[str, Any]:
    """A list of papers, each in brief."""
    briefs = [brief(record) for record in records]
    return {"papers": briefs, "total": len(briefs)}


def brief(record: Record) -> dict[str, Any]:
    """A paper without its summary and its claims."""
    whole = to_json(record)
    return {name: whole[name] for name in _BRIEF}


def paper(library: Library, key: str) -> dict[str, Any]:
    """One paper with all that is known of it; InputError for an unknown key."""
    return to_json(library.record(key))


def mixers(library: Library) -> dict[str, Any]:
    """Every mixer with its card and the papers that name it."""
    found = [
        {
            "name": part.name,
            "summary": part.summary,
            "source": part.source,
            "year": part.year,
            "facts": dict(part.facts),
            "papers": [record.key for record in library.named("mixers", part.name)],
        }
        for part in library.parts["mixers"].values()
    ]
    return {"mixers": found, "total": len(found)}


def search(index: Search, query: Query) -> dict[str, Any]:
    """What a query finds; InputError for a query that means nothing."""
    return {"query": dict(_grouped(query)), **papers(index.select(query).records)}


def _grouped(query: Query) -> Mapping[str, Any]:
    return {"q": query.text, "sort": query.sort, **{name: list(values) for name, values in query.chosen.items()}}


def _object(properties: Mapping[str, Any], *, optional: Iterable[str] = (), more: Any = False) -> dict[str, Any]:
    left = set(optional)
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in left],
        "additionalProperties": more,
    }


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items)}


_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_YEAR: dict[str, Any] = {"type": ["integer", "null"], "minimum": 1900, "maximum": 2100}
_NUMBER: dict[str, Any] = {"type": "number"}
_TEXTS = _list(_TEXT)
_VERDICT: dict[str, Any] = {"enum": list(VERDICTS)}
_ANYTHING: dict[str, Any] = {"type": "object"}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def schema() -> dict[str, Any]:
    """The JSON Schema of every answer: `$defs` by name, and any of those that an address answers with."""
    in_brief = {
        "key": {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
        "title": _TEXT,
        "year": _YEAR,
        "arxiv": _TEXT,
        "family": {"enum": list(FAMILIES)},
        "status": {"enum": list(STATUSES)},
        "verdicts": _object(dict.fromkeys(VERDICTS, _COUNT), optional=VERDICTS),
        "sentence": _TEXT,
        "mixers": _TEXTS,
        "tasks": _TEXTS,
        "learners": _TEXTS,
    }
    side = {
        "sentence": _TEXT,
        "value": _NUMBER,
        "low": _NUMBER,
        "high": _NUMBER,
        "verdict": _VERDICT,
        "competent": {"type": ["boolean", "null"]},
    }
    line = {axis: _list(_NUMBER) for axis in ("x", "y", "low", "high")}
    measured = {
        "kind": {"enum": ["exact", "trained"]},
        "scale": {"enum": ["smoke", "cpu", "long", "gpu"]},
        **dict.fromkeys(("value", "low", "high", "threshold", "seconds"), _NUMBER),
        "direction": {"enum": ["below", "above"]},
        "verdict": _VERDICT,
        **dict.fromkeys(("note", "why", "leaves_out", "mechanism", "tried", "command", "at"), _TEXT),
        "reference": _ref("side"),
        "control": _ref("side"),
        "seeds": _COUNT,
        "as_expected": {"type": "boolean"},
        "settings": _ANYTHING,
        "models": _object({}, more=_NUMBER),
        "axes": {"type": ["object", "null"]},
        "lines": _object({}, more=_ref("line")),
        "environment": _ANYTHING,
    }
    named = {"name": _TEXT, "sentence": _TEXT}
    listed = {"papers": _list(_ref("brief")), "total": _COUNT}
    mixer = {
        "name": _TEXT,
        "summary": _TEXT,
        "source": _TEXT,
        "year": _YEAR,
        "facts": _object({}, more=_TEXT),
        "papers": _TEXTS,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Contexture's read API",
        "anyOf": [_ref(name) for name in ("papers", "paper", "mixers", "search", "error")],
        "$defs": {
            "brief": _object(in_brief),
            "papers": _object(listed),
            "paper": _object(
                {
                    **in_brief,
                    "authors": _TEXTS,
                    "summary": _TEXT,
                    "refutation": _TEXT,
                    "related": _TEXTS,
                    "claims": _list({"anyOf": [_ref("unpublished"), _ref("published")]}),
                    "left_out": _object({}, more=_TEXT),
                }
            ),
            "unpublished": _object({**named, "published": {"const": False}}),
            "published": _object({**named, "published": {"const": True}, **measured}),
            "side": _object(side),
            "line": _object(line),
            "mixers": _object({"mixers": _list(_object(mixer)), "total": _COUNT}),
            "search": _object({"query": _ANYTHING, **listed}),
            "error": _object({"error": _TEXT}),
        },
    }
