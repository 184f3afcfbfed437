"""The pictures of the documents say numbers as numbers."""

from pathlib import Path

import pytest

PICTURES = sorted((Path(__file__).resolve().parent.parent / "docs" / "images").rglob("*.svg"))


def test_there_are_pictures():
    assert len(PICTURES) > 20


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_no_label_is_a_formula(path):
    text = path.read_text(encoding="utf-8")
    assert "$" not in text
    assert "<text" in text


def test_a_logarithmic_axis_has_plain_numbers():
    from matplotlib.figure import Figure

    from contexture.reports.axes import log_x

    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([1, 1000], [0, 1])
    log_x(axes)
    figure.canvas.draw()
    assert {"1", "10", "100", "1000"} <= {label.get_text() for label in axes.get_xticklabels()}
