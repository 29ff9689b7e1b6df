from __future__ import annotations

import json

import numpy as np
import pytest

from synthaug.errors import InputError
from synthaug.formats.coco import write_instances
from synthaug.formats.names import read_names
from synthaug.sample import ClassMap, Sample


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("sky, building,car", {0: "sky", 1: "building", 2: "car"}),
        ("0=sky,7 = traffic light", {0: "sky", 7: "traffic light"}),
        (("sky", "car"), {0: "sky", 1: "car"}),
        (("grade 1", "grade 2"), {0: "grade 1", 1: "grade 2"}),
        (("class",), {0: "class"}),
        (["7=a, b", "3=c=d"], {7: "a, b", 3: "c=d"}),
    ],
)
def test_names_written_down(given, names):
    assert read_names(given) == names


@pytest.mark.parametrize(
    "text",
    [
        "sky\ncar\n\n",
        "1=car\n0=sky\n",
        "0: sky\n1: car\n",
        "0\tsky\n1\tcar\n",
        "__ignore__\nsky\ncar\n",
        "Pixel Value, Class\n0, sky\n1, car\n",
        "class\nsky\ncar\n",
        "Names\n0=sky\n1=car\n",
        "1 car\n0 sky\n",
        "0. sky\n1. car\n",
    ],
)
def test_a_file_of_names(text, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text(text)
    assert read_names(str(path)) == {0: "sky", 1: "car"}


def test_names_of_a_coco_file(tmp_path):
    classes = ClassMap((2, 5, 9), ("street", "car", "bus"))
    mask = np.full((40, 40), 2, np.uint8)
    mask[5:9, 5:9] = 5
    path = tmp_path / "instances.json"
    write_instances([Sample(np.zeros((40, 40, 3), np.uint8), mask)], classes, path)
    assert read_names(str(path)) == {2: "street", 5: "car", 9: "bus"}

    path.write_text(json.dumps({"categories": [{"id": 3, "name": "cat"}]}))
    assert read_names(str(path)) == {0: "background", 3: "cat"}
    path.write_text("{}")
    with pytest.raises(InputError, match="is not a COCO instances file"):
        read_names(str(path))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("classes.txt", "no file of class names at classes.txt"),
        ("sky,,car", "the name of class id 1 is empty"),
        ("0=sky,car", "write ID=NAME for all"),
        ("1=sky,1=car", "class id 1 is named twice"),
        ("0=sky,255=void", "there is no class id 255"),
        ("car 8,road 3", "numbers stand beside the names, as in 'car 8': write ID=NAME"),
        (["64 128 64\tcar", "0 128 64\troad"], "numbers stand beside the names"),
    ],
)
def test_wrong_names_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        read_names(given)


@pytest.mark.parametrize(
    "text",
    [
        "# label:color_rgb:parts:actions\nsky:0,0,0::\ncar:128,0,0::\n",
        "sky:0,0,0::\ncar:128,0,0::\n",
        "names: ['sky', 'car']\nnc: 2\n",
        "- sky\n- car\n",
        "['sky', 'car']",
    ],
)
def test_a_file_of_something_else_is_refused(text, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"classes.txt line 1 is no class name: write one name a"):
        read_names(str(path))
    path.write_text("0=sky: clear\n1=# 7, -car\n")
    assert read_names(str(path)) == {0: "sky: clear", 1: "# 7, -car"}


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "classes.png"
    path.write_bytes(b"\xff\xd8\xfe")
    with pytest.raises(InputError, match="cannot read class names"):
        read_names(str(path))
