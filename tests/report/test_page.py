import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from synthaug.errors import InputError
from synthaug.report import Arm, HeldOut, Page, Score, write_page
from synthaug.sample import ClassMap, Sample
from synthaug.seeding import numpy_stream

CLASSES = ClassMap((0, 1), ("background", "coin <round>"))


def make_sample(number, height=48, width=36):
    image = numpy_stream(number, "page").integers(0, 256, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[10:30, 8:20] = 1
    return Sample(image, mask, f"{number:05d}")


def make_page(**changes):
    truth = make_sample(90)
    arms = (
        Arm("standard", (0.81, 0.83), 0.82, 0.69, 0.95, truth.mask),
        Arm("standard + synthetic", (0.85, 0.85), 0.85, 0.85, 0.85, truth.mask),
    )
    values = {
        "title": "One picture & its copies",
        "verdict": "No difference shown: +0.030.",
        "classes": CLASSES,
        "pairs": [make_sample(0)],
        "kept": [make_sample(i) for i in range(1, 5)],
        "dropped": [(make_sample(6), ["stray blobs", "SIFID rank"])],
        "counts": (17, 3),
        "about": ["The left half."],
        "scores": [Score("SIFID-1", "0.0123", "0.0456", "lower is closer")],
        "timings": [("fit", 12.34), ("generate", 5.0)],
        "peak_memory_gb": 1.234,
        "held_out": HeldOut(truth, arms, Arm("gain", (0.04, 0.02), 0.03, -0.1, 0.16), "U-Net"),
        "settings": {"seed": 5},
        "commands": ["synthaug demo --seed 5"],
        "sources": ["A museum."],
    }
    return Page(**{**values, **changes})


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "poster")]


@pytest.fixture
def html(tmp_path):
    return write_page(tmp_path / "page.html", make_page()).read_text("utf-8")


def test_page_needs_no_network_and_no_other_file(html):
    links = Links()
    links.feed(html)
    assert links.targets
    assert all(target.startswith("data:image/") for target in links.targets)
    assert not {"script", "link", "iframe", "object"} & set(links.tags)
    assert not re.search(r"url\(|@import", html)


def test_every_picture_decodes_at_the_size_of_its_sample(html):
    uris = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    # image, mask, both; photo + outline of 4 kept and 1 dropped; truth and 2 predictions
    assert len(uris) == 3 + 2 * 4 + 2 * 1 + 3
    sizes = {Image.open(io.BytesIO(base64.b64decode(uri))).size for uri in uris}
    assert sizes == {(36, 48)}


def test_page_shows_every_stage(html):
    for text in (
        "One picture &amp; its copies",
        "No difference shown: +0.030.",
        "coin &lt;round&gt;",
        "The left half.",
        "4 of 17 shown",
        "1 of 3 shown",
        "stray blobs; SIFID rank",
        "0.0123",
        "0.0456",
        "12.3 s",
        "1.23 GB",
        "standard + synthetic",
        "+0.030",
        "-0.100 to +0.160",
        "0.690 to 0.950",
        "synthaug demo --seed 5",
        "A museum.",
    ):
        assert text in html, text
    assert html.count("<svg") == 3


def test_page_without_optional_parts_leaves_their_sections_out(tmp_path):
    page = make_page(held_out=None, scores=(), timings=(), peak_memory_gb=None, dropped=[])
    html = write_page(tmp_path / "page.html", page).read_text("utf-8")
    assert "<svg" not in html
    assert 'id="held-out"' not in html
    assert 'id="scores"' not in html
    assert "Nothing was filtered out." in html


def test_page_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_page(tmp_path / "file" / "page.html", make_page())
