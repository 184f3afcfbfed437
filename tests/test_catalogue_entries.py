"""The entries of the catalogue: their form, and what all of them together must be."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from contexture.catalogue.entry import FAMILIES, FOLDER, Entry, load_entries, load_entry
from contexture.catalogue.library import load_library
from contexture.errors import InputError

GOOD = {
    "title": '"A Paper"',
    "authors": '["Ada One", "others"]',
    "year": "2024",
    "arxiv": '"2401.00001"',
    "family": '"mixers"',
    "sentence": '"It recalls more with less."',
    "summary": '"""\n' + "word " * 60 + '\n"""',
    "refutation": '"It recalls less."',
    "mixers": '["softmax"]',
    "tasks": "[]",
    "learners": "[]",
    "related": '["other", "third"]',
}


def written(folder: Path, **changes: str | None) -> Path:
    fields = {**GOOD, **changes}
    path = folder / "some-paper.toml"
    text = "\n".join(f"{name} = {value}" for name, value in fields.items() if value is not None)
    path.write_text(text, encoding="utf-8")
    return path


def test_an_entry_is_read_field_by_field(tmp_path: Path) -> None:
    assert load_entry(written(tmp_path)) == Entry(
        key="some-paper",
        title="A Paper",
        authors=("Ada One", "others"),
        year=2024,
        arxiv="2401.00001",
        family="mixers",
        sentence="It recalls more with less.",
        summary=" ".join(["word"] * 60),
        refutation="It recalls less.",
        mixers=("softmax",),
        tasks=(),
        learners=(),
        related=("other", "third"),
    )


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    entry = load_entry(written(tmp_path, authors=None, year=None, arxiv=None))
    assert (entry.authors, entry.year, entry.arxiv) == ((), None, "")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("title", None, "is missing"),
        ("title", '" "', "is a text that is not empty"),
        ("year", '"2024"', "is a year such as 2024"),
        ("year", "true", "is a year such as 2024"),
        ("year", "24", "is a year such as 2024"),
        ("arxiv", '"arXiv:2401.00001"', "is a number such as"),
        ("arxiv", '""', "is a number such as"),
        ("family", '"MIX"', "there are in-context-learning, mixers"),
        ("sentence", '"' + "w " * 26 + '"', "has 26 words: use 1 to 25"),
        ("summary", '"too short"', "has 2 words"),
        ("refutation", "1", "is a text that is not empty, not 1"),
        ("mixers", '"softmax"', "is a list of texts"),
        ("tasks", '["mqar", "mqar"]', "names something twice"),
        ("learners", '[""]', "is a list of texts"),
        ("authors", '["others"]', "is a list of names"),
        ("authors", '["others", "Ada One"]', "is a list of names"),
        ("related", '["one"]', "2 to 4 keys"),
        ("related", '["some-paper", "other"]', "2 to 4 keys of other entries"),
        ("colour", '"red"', "is no field of an entry"),
    ],
)
def test_a_fault_is_one_sentence_with_file_and_field(tmp_path: Path, field: str, value: str | None, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_entry(written(tmp_path, **{field: value}))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'some-paper.toml'}: {field} ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["Some Paper.toml", "some_paper.toml", "-paper.toml"])
def test_a_file_is_named_by_a_key(tmp_path: Path, name: str) -> None:
    path = written(tmp_path).rename(tmp_path / name)
    with pytest.raises(InputError, match="lower-case words joined by hyphens"):
        load_entry(path)


@pytest.mark.parametrize("data", [b"title = ", b"title = '\xff'", b"[a]\n[a]\n"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(data)
    with pytest.raises(InputError, match="is not TOML in UTF-8"):
        load_entry(path)


def test_a_folder_or_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_entries(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        load_entry(tmp_path / "none.toml")


# ---- the real ones


def test_all_papers_have_an_entry_that_is_valid() -> None:
    entries = load_entries()
    assert len(entries) == 235
    assert {entry.family for entry in entries.values()} == set(FAMILIES)


def test_every_year_is_that_of_the_first_posting() -> None:
    posted = {key: (entry.year, 2000 + int(entry.arxiv[:2])) for key, entry in load_entries().items() if entry.arxiv}
    assert len(posted) > 200
    assert [key for key, (year, first) in posted.items() if year != first] == []


def test_every_name_in_an_entry_exists_and_agrees_with_the_papers_file() -> None:
    assert load_library().faults() == []


def test_a_name_that_does_not_exist_is_found_out(tmp_path: Path) -> None:
    written(tmp_path, mixers='["softmax", "zzz"]', tasks='["mqarr"]')
    assert load_library(entries=tmp_path).faults() == [
        "some-paper: mixers names 'zzz', which does not exist (nothing is named like it)",
        "some-paper: tasks names 'mqarr', which does not exist (did you mean mqar?)",
        "some-paper: related names 'other', which has no entry (nothing is named like it)",
        "some-paper: related names 'third', which has no entry (nothing is named like it)",
    ]


def plain_words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def shared_runs(texts: dict[str, list[str]], length: int) -> list[str]:
    """Runs of so many words that two of the texts, told apart by their keys, have in common."""
    held: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for key, parts in texts.items():
        for part in parts:
            found = plain_words(part)
            for start in range(len(found) - length + 1):
                held[tuple(found[start : start + length])].add(key)
    return [f"{sorted(keys)}: {' '.join(run)}" for run, keys in held.items() if len(keys) > 1]


def test_no_twelve_words_stand_in_two_entries() -> None:
    texts = {key: [e.sentence, e.summary, e.refutation] for key, e in load_entries().items()}
    assert shared_runs(texts, 12) == []


def test_shared_runs_are_found() -> None:
    assert shared_runs({"a": ["One two, three four."], "b": ["zero ONE two three"]}, 3) == ["['a', 'b']: one two three"]


def test_no_entry_begins_its_refutation_like_many_others() -> None:
    begun: dict[str, list[str]] = defaultdict(list)
    for key, entry in load_entries(FOLDER).items():
        begun[" ".join(plain_words(entry.refutation)[:4])].append(key)
    assert {start: keys for start, keys in begun.items() if len(keys) > 6} == {}
