"""The catalogue's entries joined with what the workbench holds and has published, and given to other programs."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from catalogue_toys import write_toys
from contexture.catalogue.entry import FOLDER, load_entry
from contexture.catalogue.export import COLUMNS, bibtex, to_csv, to_json
from contexture.catalogue.library import Library, Record, load_library, results_folder
from contexture.catalogue.measures import Measure, Value, read_measures
from contexture.discovery import papers
from contexture.errors import InputError
from contexture.store.results import write_result

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return load_library(RESULTS, entries=write_toys(tmp_path_factory.mktemp("entries")))


def test_status_follows_from_what_there_is(library: Library) -> None:
    assert {key: record.status for key, record in library.papers.items()} == {
        "icl-by-gd": "measured",
        "one-step-gd": "measured",
        "toy-built": "built",
        "toy-planned": "planned",
        "toy-older": "planned",
    }


def test_without_results_a_paper_with_a_file_is_built(tmp_path: Path) -> None:
    held = load_library(tmp_path, entries=write_toys(tmp_path / "entries"))
    assert held.papers["one-step-gd"].status == "built"
    claims = held.papers["one-step-gd"].claims
    assert [claim.name for claim in claims] == ["isotropic", "anisotropic", "nonlinear"]
    assert {claim.published for claim in claims} == {None}
    with pytest.raises(InputError, match="no published result of 'isotropic'"):
        held.figure(held.papers["one-step-gd"], claims[0])


def test_newest_first_and_unknown_years_last(library: Library) -> None:
    assert list(library.papers) == ["toy-built", "one-step-gd", "icl-by-gd", "toy-older", "toy-planned"]


def test_claims_are_those_of_the_file_with_their_published_numbers(library: Library) -> None:
    record = library.record("one-step-gd")
    published = json.loads((RESULTS / "one-step-gd.json").read_text(encoding="utf-8"))["claims"]
    assert [claim.name for claim in record.claims] == [claim["name"] for claim in published]
    first = record.claims[0]
    assert first.published is not None
    assert first.published.result.value == published[0]["value"]
    assert first.published.command == published[0]["measured_by"]["command"]
    assert first.code is papers()["one-step-gd"].claims[0]
    assert sum(record.verdicts.values()) == len(published)
    assert record.file == ROOT / "src" / "contexture" / "papers" / "one_step_gd.py"


def test_every_published_paper_is_measured_in_the_real_catalogue() -> None:
    real = load_library(RESULTS)
    published = {key for key in papers() if (RESULTS / f"{key}.json").is_file()}
    assert published
    assert {key for key, record in real.papers.items() if record.status == "measured"} == published
    assert {key for key, record in real.papers.items() if record.paper} == set(papers())


def test_a_damaged_result_is_refused_by_name(tmp_path: Path) -> None:
    entries = write_toys(tmp_path / "entries")
    write_result(tmp_path / "one-step-gd.json", {"paper": "one-step-gd", "claims": [{"name": "isotropic"}]})
    with pytest.raises(InputError, match=r"one-step-gd\.json does not hold a claim that can be read"):
        load_library(tmp_path, entries=entries)


def test_a_file_of_a_papers_name_that_is_of_no_paper_is_left_alone(tmp_path: Path) -> None:
    write_result(tmp_path / "toy-older.json", {"benchmark": "something else"})
    assert load_library(tmp_path, entries=write_toys(tmp_path / "entries")).papers["toy-older"].status == "planned"


def test_where_results_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert results_folder(None) == RESULTS
    (tmp_path / "results").mkdir()
    assert results_folder(None) == Path("results")
    assert results_folder(RESULTS) == RESULTS
    with pytest.raises(InputError, match="does not exist"):
        results_folder(tmp_path / "none")


def test_authors_come_from_the_papers_file_where_the_entry_has_none(library: Library) -> None:
    assert library.record("one-step-gd").authors == ("Arvind Mahankali", "Tatsunori B. Hashimoto", "Tengyu Ma")
    assert library.record("toy-built").authors == ("Zoë Müller", "Bo O'Hara", "others")
    assert library.record("toy-planned").authors == ()


def test_papers_are_found_by_the_parts_they_name(library: Library) -> None:
    assert [record.key for record in library.named("tasks", "mqar")] == ["toy-built", "toy-older"]
    assert [record.key for record in library.named("learners", "gd")] == ["one-step-gd", "icl-by-gd"]
    assert library.named("mixers", "hyena") == ()


def test_unknown_names_are_one_sentence(library: Library) -> None:
    with pytest.raises(InputError, match="did you mean toy-built"):
        library.record("toy-buil")
    with pytest.raises(InputError, match="no mixer is named 'x'"):
        library.part("mixers", "x")


def test_hybrids_and_bundled_tables_are_parts(library: Library) -> None:
    assert library.parts["mixers"]["zamba"].facts["pattern of layers"].endswith("mamba+none*6")
    assert library.parts["tasks"]["iris"].file is None
    assert "table" not in library.parts["tasks"]


@pytest.mark.parametrize(
    ("key", "tasks", "mixers"),
    [
        ("native-hybrid", ("mqar",), ("native-hybrid", "softmax", "sliding-window")),
        ("sequential-functions", ("sliding-window", "shuffled-labels"), ("softmax",)),
    ],
)
def test_a_name_of_a_mixer_and_of_a_task_is_the_one_that_the_paper_means(
    key: str, tasks: tuple[str, ...], mixers: tuple[str, ...]
) -> None:
    entry = load_entry(FOLDER / f"{key}.toml")
    record = Record(entry=entry, status="measured", claims=(), paper=papers()[key], left_out={})
    assert record.uses("tasks") == tasks
    assert record.uses("mixers") == mixers


# ---- for other programs


def test_bibtex_of_a_paper_whose_authors_are_not_all_known(library: Library) -> None:
    assert bibtex(library.record("toy-built")) == (
        "@misc{toy-built,\n"
        "  title         = {{A Table of <Rows> \\& Columns}},\n"
        "  author        = {Zoë Müller and Bo O'Hara and others},\n"
        "  year          = {2024},\n"
        "  eprint        = {2401.00001},\n"
        "  archivePrefix = {arXiv},\n"
        "  url           = {https://arxiv.org/abs/2401.00001}\n"
        "}\n"
    )


def test_bibtex_leaves_out_what_is_not_known(library: Library) -> None:
    assert bibtex(library.record("toy-planned")) == "@misc{toy-planned,\n  title = {{Segmentation by Axial Pools}}\n}\n"


def test_json_holds_plain_finite_values(library: Library) -> None:
    text = json.dumps([to_json(record) for record in library.papers.values()], allow_nan=False)
    back = {paper["key"]: paper for paper in json.loads(text)}
    assert back["one-step-gd"]["verdicts"] == {"held": 3}
    assert back["one-step-gd"]["claims"][0]["command"].startswith("contexture claim one-step-gd")
    assert back["toy-planned"]["year"] is None
    assert back["toy-built"]["mixers"] == ["delta-rule", "softmax"]


def test_csv_has_a_row_for_each_paper(library: Library) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(library.papers.values()))))
    assert tuple(rows[0]) == COLUMNS
    assert [row["key"] for row in rows] == list(library.papers)
    assert rows[0]["authors"] == "Zoë Müller; Bo O'Hara; others"
    assert rows[1]["verdicts"] == "held 3"
    assert (rows[-1]["year"], rows[-1]["claims"]) == ("", "0")


# ---- measurements side by side


def test_measures_are_read_with_their_origin() -> None:
    found = {measure.key: measure for measure in read_measures(RESULTS)}
    assert {m.room for m in found.values()} == {"mixers", "learners"}
    speed = json.loads((RESULTS / "benchmarks" / "mixer_speed.json").read_text(encoding="utf-8"))
    row = next(row for row in speed["rows"] if row["name"] == "softmax")
    decode = found[f"decode-{row['length']}-{row['dtype']}"]
    assert decode.values["softmax"] == Value(value=row["decode"])
    assert decode.command == speed["command"]
    recall = found["recall-ladder-mqar-8-parameters"]
    assert (recall.task, recall.lower_is_better, recall.text(0.5)) == ("mqar", False, "50.0 %")
    assert recall.rules == {"chance": 0.03125}


def test_a_rung_that_two_ladders_climbed_stands_once() -> None:
    found = [measure for measure in read_measures(RESULTS) if measure.task == "mqar" and "mqar-8" in measure.title]
    said = {measure.title: measure.key for measure in found}
    assert said == {
        "accuracy on mqar-8": "recall-ladder-mqar-8-parameters",
        "accuracy on mqar-8, equal state": "recall-ladder-mqar-8-state",
        "accuracy on mqar-8, equal seconds": "recall-ladder-mqar-8-seconds",
    }
    assert len(said) == len(found)


def test_every_measure_says_the_command_that_measured_it() -> None:
    assert {measure.key for measure in read_measures(RESULTS) if not measure.command} == set()


def test_what_was_not_measured_says_why() -> None:
    found = {measure.key: measure for measure in read_measures(RESULTS)}
    missing = found["forward-8192-fp32"].missing
    assert not missing.keys() & found["forward-8192-fp32"].values.keys()
    assert re.fullmatch(r"would take about \d+ s a call", missing["atlas-per-token"])
    assert found["forward-2048-fp32"].missing == {}


def test_long_sequences_are_read_and_the_first_file_counts_where_two_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    for stem, lengths, taken in (("mixer_lengths", [2048, 32768], 3.0), ("mixer_speed", [512, 2048], 2.0)):
        rows = [{"name": "mamba", "dtype": "fp32", "length": n, "forward": taken, "reason": ""} for n in lengths]
        shape = {"num_heads": 4, "dim": 64, "batch": 2}
        document = {"shape": shape, "threads": 1, "dtypes": ["fp32"], "lengths": lengths, "rows": rows}
        (tmp_path / "benchmarks" / f"{stem}.json").write_text(json.dumps(document), encoding="utf-8")
    found = {measure.length: measure.values["mamba"].value for measure in read_measures(tmp_path)}
    assert found == {512: 2.0, 2048: 2.0, 32768: 3.0}


def test_bytes_are_not_said_to_be_times() -> None:
    found = {measure.key: measure for measure in read_measures(RESULTS)}
    layer = "One layer of 4 heads of 64, batch 2, fp32: "
    assert found["decode-512-fp32"].about == layer + "1 thread, processor time."
    assert found["state-bytes-512-fp32"].about == layer + "what is kept of one sequence after its last token."


def test_a_placing_says_what_stood_on_the_rung() -> None:
    found = {measure.key: measure for measure in read_measures(RESULTS)}
    aaren = found["recall-ladder-mqar-8-parameters"].values["aaren"]
    assert aaren.note == "width 36, 14 k parameters, 328 B of state, muon at 0.1"


def test_numbers_that_read_the_same_share_a_place() -> None:
    values = {name: Value(value=value) for name, value in (("a", 0.99999), ("b", 0.9997), ("c", 0.9996), ("d", 0.5))}
    measure = Measure(key="k", title="t", about="", room="mixers", unit="share", lower_is_better=False, values=values)
    assert [measure.place(name) for name in "abcd"] == [1, 1, 1, 4]  # 100.0 %, three times


def test_measures_stand_from_the_best_to_the_worst() -> None:
    for measure in read_measures(RESULTS):
        numbers = [value.value for value in measure.values.values()]
        assert numbers == sorted(numbers, reverse=not measure.lower_is_better), measure.key


@pytest.mark.parametrize("text", ["{", "[]", '{"dtypes": 3}', '{"dtypes": ["fp32"], "lengths": [1]}'])
def test_a_damaged_measurement_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "mixer_speed.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"mixer_speed\.json is not what its name says"):
        read_measures(tmp_path)


def test_a_folder_without_measurements_has_none(tmp_path: Path) -> None:
    shutil.copy(RESULTS / "one-step-gd.json", tmp_path)
    assert read_measures(tmp_path) == ()
