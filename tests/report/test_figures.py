import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from synthaug.report import figures
from synthaug.sample import ClassMap, Sample


@pytest.fixture
def sample():
    image = np.full((40, 50, 3), 100, np.uint8)
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:30] = 7
    mask[35:, :] = 255
    return Sample(image, mask)


def test_overlay_tints_objects_outlines_them_and_leaves_the_background(sample):
    drawn = figures.overlay(sample, ClassMap((0, 7)), opacity=0.5)
    colour = np.array(figures.class_colour(1))
    assert drawn.shape == (40, 50, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[10, 10:30] == colour).all()
    np.testing.assert_allclose(drawn[20, 20], (100 + colour) / 2, atol=0.5)
    assert (drawn[5, 5] == 100).all()
    assert (drawn[9, 10:30] == 100).all()
    assert (drawn[38, 5] == 130).all()
    assert (sample.image == 100).all()


def test_overlay_without_contour_keeps_the_rim_translucent(sample):
    drawn = figures.overlay(sample, opacity=0.5, contour=False)
    assert (drawn[10, 10] == drawn[20, 20]).all()


def test_a_class_keeps_its_colour_when_other_classes_are_absent():
    image = np.zeros((40, 40, 3), np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[:20] = 9
    drawn = figures.overlay(Sample(image, mask), ClassMap((0, 4, 9)), opacity=1.0)
    assert (drawn[3, 3] == figures.class_colour(2)).all()


def test_grid_places_pictures_row_by_row():
    pictures = [np.full((8, 5, 3), value, np.uint8) for value in (10, 20, 30)]
    drawn = figures.grid(pictures, columns=2, gap_px=2)
    assert drawn.shape == (2 * 10 + 2, 2 * 7 + 2, 3)
    assert (drawn[2:10, 2:7] == 10).all()
    assert (drawn[2:10, 9:14] == 20).all()
    assert (drawn[12:20, 2:7] == 30).all()
    assert (drawn[12:20, 9:14] == 255).all()


@pytest.mark.parametrize("lossless", [True, False])
def test_data_uri_decodes_to_the_picture(sample, lossless):
    head, data = figures.data_uri(sample.image, lossless=lossless).split(",")
    assert head == f"data:image/{'png' if lossless else 'jpeg'};base64"
    decoded = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.abs(decoded.astype(int) - 100).max() <= (0 if lossless else 2)


def test_bars_are_as_long_as_their_values():
    svg = ET.fromstring(figures.bar_chart([("fit & co", 10.0), ("filter", 5.0)]))
    first, second = (float(r.get("width")) for r in svg.iter("rect"))
    assert first == pytest.approx(2 * second)
    assert "fit & co" in [t.text for t in svg.iter("text")]
    assert "10.0 s" in [t.text for t in svg.iter("text")]


def test_intervals_show_every_seed_and_are_cut_at_the_axis():
    row = ("arm", (0.2, 0.4), 0.3, -5.0, 0.45)
    svg = ET.fromstring(figures.interval_chart([row], low=0.0, high=0.5, reference=0.25))
    interval = next(e for e in svg.iter("line") if e.get("class") == "interval")
    ticks = [float(e.get("x1")) for e in svg.iter("line") if e.get("class") == "tick"]
    reference = next(e for e in svg.iter("line") if e.get("class") == "reference")
    assert len(list(svg.iter("circle"))) == 2
    assert float(interval.get("x1")) == ticks[0]
    assert ticks[-2] < float(interval.get("x2")) < ticks[-1]
    assert float(reference.get("x1")) == pytest.approx(ticks[2], abs=0.1)


def test_a_long_name_is_cut_and_leaves_the_gains_their_room():
    name = "standard+synthetic & " + 100 * "x"
    rows = [figures.GainRow(name, 2.0, 1.0, 3.0), figures.GainRow("b", -2.0, -3.0, -1.0)]
    svg = ET.fromstring(figures.gain_chart(rows, baseline="standard"))
    better, worse = (float(e.get("x1")) for e in svg.iter("line") if e.get("class") == "mean")
    assert better > worse > 420
    [label] = (text for text in svg.iter("text") if text.find("title") is not None)
    assert label.find("title").text == name
    assert label.find("title").tail == name[:52] + "…"


def test_charts_have_words_for_those_who_hear_them():
    gains = figures.gain_chart([figures.GainRow("arm", 2.0)], baseline='a "b"')
    bars = figures.bar_chart([("fit", 10.0), ("filter", 5.0)])
    intervals = figures.interval_chart([("arm", (0.2,), 0.3, 0.25, 0.45)], low=0.0, high=0.5)
    words = [ET.fromstring(svg).get("aria-label") for svg in (gains, bars, intervals)]
    assert words == [
        'Gain over a "b" per arm; the numbers stand in the table below',
        "fit 10.0 s; filter 5.0 s",
        "arm: 0.300, interval 0.250 to 0.450",
    ]
