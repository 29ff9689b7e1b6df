import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthaug.errors import InputError
from synthaug.formats.davis import read_video
from synthaug.formats.folder import mask_png

DATA = Path(__file__).parents[3] / "shared" / "data" / "davis16-240p"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a video of 40x56 px; ``values`` are those of each mask."""

    def write(values, *, video="dog", below="", palette=False, name="{:05}"):
        frames = tmp_path / "JPEGImages" / below / video
        masks = tmp_path / "Annotations" / below / video
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number, ids in enumerate(values):
            image = np.full((40, 56, 3), 10 * number, np.uint8)
            Image.fromarray(image).save(frames / f"{name.format(number)}.jpg")
            mask = np.zeros((40, 56), np.uint8)
            for row, value in enumerate(ids):
                mask[8 * row : 8 * row + 8] = value
            path = masks / f"{name.format(number)}.png"
            if palette:
                path.write_bytes(mask_png(mask))
            else:
                Image.fromarray(mask).save(path)
        return tmp_path

    return write


def _masks(unit):
    return [np.unique(sample.mask).tolist() for sample in unit.test]


@pytest.mark.parametrize("below", ["", "480p"])
def test_first_frame_trains_and_the_later_ones_test(write, below):
    unit = read_video(write([(0, 1)] * 5, below=below, palette=True), "dog")
    assert (unit.name, unit.kind, unit.classes.ids) == ("dog", "video", (0, 1))
    assert [sample.id for sample in unit.training] == ["00000"]
    assert [sample.id for sample in unit.test] == ["00001", "00002", "00003", "00004"]
    assert [int(sample.image.mean()) for sample in unit.test] == [10, 20, 30, 40]
    assert unit.test[3].size == (40, 56)


def test_ignored_ids_are_void_in_all_masks(write):
    root = write([(0, 1, 3), (0, 1, 3), (3, 3, 3, 3, 3)], palette=True)
    unit = read_video(root, "dog", ignore=[3])
    assert unit.classes.ids == (0, 1)
    assert _masks(unit) == [[0, 1, 255], [255]]
    with pytest.raises(InputError, match="cannot ignore id 256"):
        read_video(root, "dog", ignore=[256])


def test_several_objects_and_void_are_kept(write):
    root = write([(0, 1, 2), (0, 1, 2, 3), (0, 255, 2)], palette=True)
    with pytest.warns(UserWarning, match=r"\[3\]"):
        unit = read_video(root, "dog")
    assert unit.classes.ids == (0, 1, 2)
    assert _masks(unit) == [[0, 1, 2, 3], [0, 2, 255]]
    assert (unit.classes.encode(unit.test[1].mask)[8:16] == -1).all()


def test_255_of_a_binary_mask_is_the_object(write):
    # Frame 1 shows the object alone, frame 2 none.
    unit = read_video(write([(0, 255), (255,) * 5, (0,), (0, 255)]), "dog")
    assert unit.classes.ids == (0, 1)
    assert sorted(set(unit.training[0].mask.flat)) == [0, 1]
    assert _masks(unit) == [[1], [0], [0, 1]]
    assert unit.test[0].id == "00001"


def test_later_masks_of_a_binary_video_may_call_the_object_1(write):
    assert _masks(read_video(write([(0, 255), (0, 1)]), "dog")) == [[0, 1]]


def test_255_beside_an_object_is_void_in_every_mask(write):
    unit = read_video(write([(0, 1), (255,) * 5, (0, 1, 255)]), "dog")
    assert _masks(unit) == [[255], [0, 1, 255]]


def test_white_masks_after_a_first_one_with_ids_are_refused_or_warned_of(write):
    root = write([(0, 1), (0, 255), (0,), (0, 255)])
    with pytest.raises(InputError, match=r"none of the 3 test masks .* 2 of them hold 0 and 255"):
        read_video(root, "dog")
    with pytest.warns(UserWarning, match=r"classes \[1\] are in the training masks but in no"):
        assert _masks(read_video(root, "dog", ignore=[255])) == [[0, 255], [0], [0, 255]]
    root = write([(0, 1), (0, 255), (0, 1)], video="cat")
    with pytest.warns(UserWarning, match=r"1 of 3 masks hold 0 and 255 alone \(cat/00001.png\)"):
        assert _masks(read_video(root, "cat")) == [[0, 255], [0, 1]]


@pytest.mark.parametrize(
    ("later", "words"),
    [
        ([(0, 1), (0, 1, 3)], r"video dog: classes \[3\] are in the test masks but in no training"),
        ([(0,), (0, 3, 3)], r"video dog: classes \[1\] are in the training masks but in no test"),
    ],
)
def test_objects_of_the_first_or_of_later_masks_alone_are_warned_of(write, later, words):
    root = write([(0, 1), *later])
    with pytest.warns(UserWarning, match=words):
        unit = read_video(root, "dog")
    assert unit.classes.ids == (0, 1)


def test_an_object_that_leaves_is_not_warned_of(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_video(write([(0, 1, 2), (0, 1, 2), (0, 1), (0, 7)]), "dog", ignore=[7])


@pytest.mark.parametrize("name", ["{}", "frame_{}", "0{}"])
def test_numbers_in_names_are_sorted_as_numbers(write, name):
    root = write([(0, 1)] * 12, name=name)
    for part, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
        for number in range(8):
            (root / part / "dog" / f"{name.format(number)}.{ending}").unlink()
    unit = read_video(root, "dog")
    assert [sample.id for sample in unit.training] == [name.format(8)]
    assert [sample.id for sample in unit.test] == [name.format(n) for n in (9, 10, 11)]


def test_every_nth_frame(write):
    root = write([(0, 1)] * 8)
    assert [s.id for s in read_video(root, "dog", every=3).test] == ["00001", "00004", "00007"]
    assert len(read_video(root, "dog", every=100).test) == 1
    with pytest.raises(InputError, match="give 1 or more"):
        read_video(root, "dog", every=0)


def test_frames_without_a_mask_are_skipped_and_a_mask_without_frame_refused(write):
    root = write([(0, 1)] * 4)
    (root / "Annotations" / "dog" / "00002.png").unlink()
    assert [sample.id for sample in read_video(root, "dog").test] == ["00001", "00003"]
    (root / "JPEGImages" / "dog" / "00003.jpg").unlink()
    with pytest.raises(InputError, match=r"00003.png has no frame 00003.jpg"):
        read_video(root, "dog")


def test_test_frames_are_read_when_indexed(write):
    root = write([(0, 1)] * 3)
    unit = read_video(root, "dog")
    (root / "JPEGImages" / "dog" / "00002.jpg").unlink()
    assert unit.test[0].id == "00001"
    with pytest.raises(InputError, match="no image at"):
        unit.test[1]


def test_what_is_no_video_is_refused(write):
    root = write([(0, 1)])
    with pytest.raises(InputError, match=r"no video 'cat' at .*480p"):
        read_video(root, "cat")
    with pytest.raises(InputError, match="has one mask"):
        read_video(root, "dog")
    write([(0,), (0, 1)], video="late")
    with pytest.raises(InputError, match=r"00000.png, the first mask .* shows no object: remove"):
        read_video(root, "late")
    write([(1,) * 5, (0, 1)], video="full")
    with pytest.raises(InputError, match="only one class"):
        read_video(root, "full")


def test_objects_that_swap_their_ids_by_their_colours_are_refused(write):
    root = write([(0, 1, 2)] * 3, palette=True)
    file = root / "Annotations" / "dog" / "00002.png"
    mask = Image.open(file)
    palette = mask.getpalette()
    mask.putpalette(palette[:3] + palette[6:9] + palette[3:6])
    mask.save(file)
    with pytest.raises(InputError, match=r"00002.png give id 1 the colours"):
        read_video(root, "dog")


def test_an_object_that_is_taken_for_the_background_is_told(write):
    with (
        pytest.warns(UserWarning, match="classes .0. are in the test masks"),
        pytest.warns(UserWarning, match="no background .id 0., so that id 1 is taken for it"),
    ):
        read_video(write([(1, 2, 1, 1, 1), (0, 1, 2)]), "dog")


def test_names_match_in_either_form_of_unicode(write):
    root = write([(0, 1)] * 2, name="h\u00fcnd{}")
    for file in sorted((root / "Annotations" / "dog").iterdir()):
        file.rename(file.with_name(f"hu\u0308nd{file.stem[-1]}.png"))
    assert len(read_video(root, "dog").test) == 1


def test_damaged_test_mask_is_found_at_once(write):
    root = write([(0, 1)] * 3)
    (root / "Annotations" / "dog" / "00002.png").write_bytes(b"broken")
    assert len(read_video(root, "dog", every=5).test) == 1  # it is none
    with pytest.raises(InputError, match=r"cannot read mask .*00002.png"):
        read_video(root, "dog")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs DAVIS-2016 at 240p beside the checkout")
def test_real_video():
    unit = read_video(DATA, "dog", every=10)
    assert unit.classes.ids == (0, 1)
    assert unit.training[0].size == (240, 427)
    assert [sample.id for sample in unit.test] == [f"000{n}1" for n in range(6)]
    assert all(0.01 < (sample.mask == 1).mean() < 0.5 for sample in unit.test)
