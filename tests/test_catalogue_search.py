"""Search, facets and orders of the catalogue."""

import sqlite3
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogue_toys import write_toys
from contexture.catalogue.library import Library, load_library
from contexture.catalogue.query import FACETS, MOST_TEXT, Query, values
from contexture.catalogue.search import MOST_WORDS, Search, texts, words
from contexture.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return load_library(ROOT / "results", entries=write_toys(tmp_path_factory.mktemp("entries")))


@pytest.fixture(scope="module")
def search(library: Library) -> Search:
    return Search(library)


@pytest.fixture(scope="module")
def real() -> tuple[Search, Search]:
    held = load_library(ROOT / "results")
    return Search(held), Search(held, indexed=False)


def asked(**parameters: str) -> Query:
    return Query.parse(parameters.items())


# ---- words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("segmentation", ["toy-planned"]),
        ("SEGMENT", ["toy-planned"]),
        ("axial pool", ["toy-planned"]),
        ("pool axial", ["toy-planned"]),
        ("naive", ["toy-built"]),
        ("NAÏVE", ["toy-built"]),
        ("muller zoe", ["toy-built"]),
        ("delta-rule", ["toy-built"]),
        ("mahankali", ["one-step-gd"]),
        ("axial gradient", []),
        ("egmentation", []),
    ],
)
def test_a_paper_is_found_by_beginnings_of_all_its_words(search: Search, text: str, found: list[str]) -> None:
    assert search.find(text) == found


def test_claims_are_searched(search: Search) -> None:
    assert search.find("regresses sines") == ["icl-by-gd"]


def test_a_title_counts_more_than_a_summary(search: Search) -> None:
    assert search.find("recall")[0] == "toy-older"
    assert set(search.find("recall")) == {"toy-older", "toy-built"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        '"',
        '""',
        "*",
        "^",
        "-",
        "()",
        "{title}:",
        "\0",
        "\ud800",
        "🙂",
        "' OR 1=1 --",
        "NEAR",
        "NEAR(",
        "NEAR(recall pairs, 2)",
        "AND OR NOT",
        "title:recall",
        "recall*",
        "rec*ll",
        '"recall',
        "recall AND",
        "x" * 10_000,
        "recall " * 2_000,
        "ab " * 5_000,
        "日本語",
        "é",
        "e\u0301",
        "ﬁ",
        "İ",
        "ß",
        "%_",
    ],
)
def test_whatever_is_typed_is_only_words(search: Search, text: str) -> None:
    plain = Search(search.library, indexed=False)
    assert search.indexed
    assert not plain.indexed
    assert set(search.find(text)) == set(plain.find(text))
    if not words(text):
        assert search.find(text) == list(search.library.papers)


def test_a_sign_of_the_index_has_no_meaning(search: Search) -> None:
    assert set(search.find("recall*")) == set(search.find('"recall"')) == set(search.find("recall"))
    assert search.find("title:segmentation") == []  # the word "title" stands nowhere in that paper
    assert search.find("NOT segmentation") == search.find("segmentation not")


def test_a_long_text_is_cut(search: Search) -> None:
    assert search.find("recall " + "zzz " * MOST_TEXT) == []
    letters = " ".join(chr(97 + i % 26) + chr(97 + i // 26) for i in range(MOST_WORDS))
    assert search.find(f"{letters} recall") == search.find(f"{letters} zzz") == []
    assert set(search.find("t " * MOST_WORDS + "recall")) == set(search.find("t recall"))


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=40))
def test_with_and_without_the_index_the_same_papers_are_found(real: tuple[Search, Search], text: str) -> None:
    indexed, plain = real
    assert set(indexed.find(text)) == set(plain.find(text))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_same_papers_are_found_by_words_that_stand_in_them(
    real: tuple[Search, Search], data: st.DataObject
) -> None:
    indexed, plain = real
    record = data.draw(st.sampled_from(list(indexed.library.papers.values())))
    held = words(" ".join(texts(record).values()))
    chosen = data.draw(st.lists(st.sampled_from(held), min_size=1, max_size=4))
    cut = [word[: data.draw(st.integers(1, len(word)))] for word in chosen]
    found = indexed.find(" ".join(cut))
    assert record.key in found
    assert set(found) == set(plain.find(" ".join(cut)))


@pytest.mark.parametrize("text", ["linear attention recall", "gradient descent", "state space", "vision"])
def test_without_the_index_the_first_hit_has_the_words_in_its_title_too(real: tuple[Search, Search], text: str) -> None:
    for one in real:
        best = one.library.papers[one.find(text)[0]]
        assert set(words(text)) & set(words(texts(best)["title"] + " " + texts(best)["names"]))


def test_where_there_is_no_sqlite_words_are_found_all_the_same(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    without = Search(library)
    assert not without.indexed
    assert without.find("axial") == ["toy-planned"]


def test_where_sqlite_has_no_fts5_words_are_found_all_the_same(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("no such module: fts5")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    assert Search(library).find("axial") == ["toy-planned"]


def test_threads_may_share_a_search(real: tuple[Search, Search]) -> None:
    wanted = real[0].find("recall")
    faults: list[object] = []

    def ask() -> None:
        for _ in range(30):
            if real[0].find("recall") != wanted:
                faults.append("another answer")

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


# ---- facets and orders


def test_facets_count_what_choosing_them_would_find(search: Search) -> None:
    facets = search.select(Query()).facets
    verdicts = Counter(verdict for record in search.library.papers.values() for verdict in record.verdicts)
    assert verdicts["held"] == 2
    assert {facet: {c.value: c.count for c in choices} for facet, choices in facets.items()} == {
        "family": {"in-context-learning": 2, "mixers": 2, "vision": 1},
        "status": {"measured": 2, "built": 1, "planned": 2},
        "verdict": verdicts,
        "mechanism": {"delta-rule": 1, "linear-attention-identity": 1, "softmax": 1},
        "task": {"mqar": 2, "uniform-linear-regression": 1, "sine": 1},
        "year": {"2024": 1, "2023": 1, "2022": 1, "2021": 1, "unknown": 1},
    }


def test_facets_narrow_each_other_and_values_of_one_are_alternatives(search: Search) -> None:
    both = Query.parse([("family", "mixers"), ("family", "vision"), ("status", "planned")])
    listing = search.select(both)
    assert [record.key for record in listing.records] == ["toy-older", "toy-planned"]
    assert {c.value: (c.count, c.chosen) for c in listing.facets["family"]} == {
        "mixers": (1, True),
        "vision": (1, True),
    }
    assert {c.value: c.count for c in listing.facets["status"]} == {"built": 1, "planned": 2}


def test_the_counts_are_those_of_the_lists_that_the_choices_lead_to(real: tuple[Search, Search]) -> None:
    base = asked(q="attention", family="mixers")
    for search in real:
        for facet, choices in search.select(base).facets.items():
            for choice in choices:
                alone = Query(
                    text=base.text,
                    chosen={**{f: v for f, v in base.chosen.items() if f != facet}, facet: (choice.value,)},
                )
                assert search.select(alone).total == choice.count, (facet, choice)


def test_every_paper_has_values_that_can_be_chosen(search: Search) -> None:
    for record in search.library.papers.values():
        for facet in FACETS:
            for value in values(record, facet):
                assert record in search.select(Query(chosen={facet: (value,)})).records


def test_groups_follow_the_order(search: Search) -> None:
    def groups(query: Query) -> list[tuple[str, list[str]]]:
        return [(name, [record.key for record in records]) for name, records in search.select(query).groups]

    assert groups(Query()) == [
        ("2024", ["toy-built"]),
        ("2023", ["one-step-gd"]),
        ("2022", ["icl-by-gd"]),
        ("2021", ["toy-older"]),
        ("Year not recorded", ["toy-planned"]),
    ]
    assert groups(asked(sort="status"))[0] == ("Measured", ["one-step-gd", "icl-by-gd"])
    assert groups(asked(sort="family"))[1] == ("Token mixers", ["toy-built", "toy-older"])
    assert groups(asked(sort="title")) == [("", ["toy-built", "toy-older", "one-step-gd", "toy-planned", "icl-by-gd"])]
    assert groups(asked(q="recall")) == [("", ["toy-older", "toy-built"])]
    assert groups(asked(q="recall", sort="newest")) == [("2024", ["toy-built"]), ("2021", ["toy-older"])]
    assert groups(asked(q="zzz")) == []


def test_an_address_is_a_query_and_a_query_an_address() -> None:
    query = Query.parse([("q", " a  b "), ("year", "2024"), ("family", "vision"), ("year", "2021"), ("sort", "title")])
    assert query.address() == "?q=a+b&family=vision&year=2021&year=2024&sort=title"
    assert Query.parse(query.pairs()) == query
    assert Query.parse([("q", ""), ("family", ""), ("sort", "")]) == Query()
    assert query.toggled("year", "2021").toggled("year", "2021") == query
    assert query.toggled("family", "vision").address() == "?q=a+b&year=2021&year=2024&sort=title"


@pytest.mark.parametrize("pair", [("colour", "red"), ("sort", "random"), ("<script>", "1")])
def test_what_an_address_cannot_ask_is_one_sentence(pair: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="there is no"):
        Query.parse([pair])


def test_a_value_that_no_paper_has_finds_nothing_and_can_be_taken_back(search: Search) -> None:
    listing = search.select(asked(family="nothing-like-it"))
    assert listing.total == 0
    assert [(c.value, c.count) for c in listing.facets["family"] if c.chosen] == [("nothing-like-it", 0)]
