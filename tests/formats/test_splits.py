import os
import pickle
import warnings

import numpy as np
import pytest
from PIL import Image

from synthaug.errors import InputError
from synthaug.formats.splits import read_split
from synthaug.seeding import numpy_stream


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a folder of pairs, each of its own size; gives its paths."""

    def write(name, masks):
        images, labels = tmp_path / name / "images", tmp_path / name / "masks"
        images.mkdir(parents=True)
        labels.mkdir()
        rng = np.random.default_rng(0)
        for number, ids in enumerate(masks):
            mask = np.zeros((40 + number, 50), np.uint8)
            for row, value in enumerate(ids):
                mask[8 * row : 8 * row + 8] = value
            Image.fromarray(mask).save(labels / f"{number:02}.png")
            image = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
            Image.fromarray(image).save(images / f"{number:02}.jpg")
        return images, labels

    return write


def _ids(samples):
    return [sample.id for sample in samples]


def test_drawn_split_is_whole_disjoint_and_repeats(write):
    folders = write("rocks", [(0, 1)] * 10)
    unit = read_split(*folders, train=3, seed=1)
    assert len(unit.training) == 3
    assert sorted([*_ids(unit.training), *_ids(unit.test)]) == [f"{i:02}" for i in range(10)]
    assert _ids(unit.training) == sorted(_ids(unit.training))
    assert _ids(read_split(*folders, train=3, seed=1).training) == _ids(unit.training)
    others = {tuple(_ids(read_split(*folders, train=3, seed=s).training)) for s in range(6)}
    assert len(others) > 1
    assert (unit.kind, unit.classes.ids) == ("images", (0, 1))


def test_a_unit_is_named_alike_wherever_its_folders_lie(write):
    names = [read_split(*write(folder, [(0, 1)] * 2)).name for folder in ("rocks", "moved")]
    assert names == ["data", "data"]
    assert read_split(*write("third", [(0, 1)] * 2), name="rocks").name == "rocks"


@pytest.mark.parametrize(("train", "count"), [(None, 5), (0.3, 3), (0.01, 1), (9, 9), (0.9, 9)])
def test_number_or_share(write, train, count):
    unit = read_split(*write("rocks", [(0, 1)] * 10), train=train)
    assert (len(unit.training), len(unit.test)) == (count, 10 - count)


def test_training_images_are_not_held_and_their_usual_size_is_the_units(write):
    unit = read_split(*write("rocks", [(0, 1)] * 10), train=0.9)
    assert unit.training[0] is not unit.training[0]
    heights = sorted(sample.size[0] for sample in unit.training)
    assert unit.size == (heights[4], 50)
    assert len(pickle.dumps(unit)) < 5000


def test_test_frames_are_read_when_indexed_at_their_own_size(write):
    images, masks = write("rocks", [(0, 1, 2)] * 6)
    unit = read_split(images, masks, train=1)
    sizes = {sample.id: sample.size for sample in unit.test}
    assert all(sizes[name] == (40 + int(name), 50) for name in sizes)
    assert len(sizes) == 5
    sample = unit.test[-1]
    assert np.array_equal(sample.mask, np.array(Image.open(masks / f"{sample.id}.png")))
    assert _ids(unit.test[::2]) == _ids(unit.test)[::2]
    (images / f"{sample.id}.jpg").write_bytes(b"broken")
    assert unit.test[0].size
    with pytest.raises(InputError, match="cannot read image"):
        unit.test[-1]


def test_given_split(write):
    training, test = write("train", [(0, 1)] * 4), write("val", [(0, 1)] * 3)
    unit = read_split(*training, test_images=test[0], test_masks=test[1])
    assert (len(unit.training), len(unit.test)) == (4, 3)
    few = read_split(*training, test_images=test[0], test_masks=test[1], train=2)
    assert (len(few.training), len(few.test)) == (2, 3)
    with pytest.raises(InputError, match="holds 4 images, not 5"):
        read_split(*training, test_images=test[0], test_masks=test[1], train=5)
    with pytest.raises(InputError, match="both its folders"):
        read_split(*training, test_images=test[0])
    with pytest.raises(InputError, match="is both training and test folder"):
        read_split(*training, test_images=training[0], test_masks=training[1])


def test_binary_masks_are_read_alike_in_training_and_test(write):
    training = write("train", [(0, 255), (0,), (0, 255)])
    test = write("val", [(0, 255), (0, 1)])  # whatever white is called there
    unit = read_split(*training, test_images=test[0], test_masks=test[1])
    assert (unit.classes.ids, unit.white_is_object) == ((0, 1), True)
    for sample in [*unit.training, *unit.test]:
        assert set(np.unique(sample.mask)) <= {0, 1}
    assert all((sample.mask == 1).any() for sample in unit.test)
    with pytest.raises(InputError, match="only one class"):
        read_split(*training, test_images=test[0], test_masks=test[1], ignore=[255])


def test_white_masks_among_numbered_ones_are_warned_of(write):
    with pytest.warns(UserWarning, match=r"1 of 4 masks hold 0 and 255 alone \(03.png\)"):
        read_split(*write("rocks", [(0, 1), (0, 1), (0, 1), (0, 255)]), train=2, seed=0)
    training, test = write("train", [(0, 1)]), write("val", [(0, 255)])
    with pytest.warns(UserWarning, match=r"classes \[1\] are in the training masks but in no"):
        read_split(*training, test_images=test[0], test_masks=test[1])


def test_class_of_the_test_set_alone_is_warned_of_and_unknown(write):
    training = write("train", [(0, 1), (0, 3)])
    test = write("val", [(0, 1, 7), (0, 255), (9, 3)])
    with pytest.warns(UserWarning, match=r"classes \[7, 9\] are in the test masks") as caught:
        unit = read_split(*training, test_images=test[0], test_masks=test[1])
    assert len(caught) == 1
    assert unit.classes.ids == (0, 1, 3)
    channels = unit.classes.encode(unit.test[0].mask)
    assert (channels[16:24] == -1).all()
    assert (channels[:16] >= 0).all()


def test_no_warning_without_cause(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unit = read_split(*write("rocks", [(0, 1, 255), (0, 1)]))
    assert unit.classes.ids == (0, 1)


def test_what_cannot_be_split_is_refused(write):
    images, masks = write("rocks", [(0, 1)] * 3)
    with pytest.raises(InputError, match="3 to train on leave none to test"):
        read_split(images, masks, train=3)
    for train in (0, -1, 0.0, 1.5):
        with pytest.raises(InputError, match="a whole number or a share"):
            read_split(images, masks, train=train)
    Image.new("RGB", (50, 40)).save(images / "00.png")
    with pytest.raises(InputError, match="holds several pictures named 00: keep one"):
        read_split(images, masks)
    (images / "00.png").unlink()
    (masks / "01.png").unlink()
    with pytest.raises(InputError, match=r"01.jpg has no mask"):
        read_split(images, masks)


def test_damaged_test_mask_is_found_at_once(write):
    training, test = write("train", [(0, 1)] * 2), write("val", [(0, 1)] * 3)
    (test[1] / "02.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"cannot read mask .*02.png"):
        read_split(*training, test_images=test[0], test_masks=test[1])


def test_training_masks_of_one_class_are_refused(write):
    with pytest.raises(InputError, match="only one class"):
        read_split(*write("rocks", [(0,)] * 4))


def test_drawn_split_trains_on_every_class_of_two_images(write):
    masks = [(0, 1)] * 16 + [(0, 2)] * 2 + [(0, 1, 3), (0, 3)] + [(0, 4)]
    folders = write("rocks", masks)
    drawn = set()
    for seed in (*range(6), 0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of class 4
            unit = read_split(*folders, train=4, seed=seed)
        drawn.add(tuple(_ids(unit.training)))
        assert len(unit.training) == 4
        assert {0, 1, 2, 3} <= set(unit.classes.ids)
        assert len(unit.test) == len(masks) - 4
    assert 1 < len(drawn) <= 6


def test_too_few_places_go_to_the_images_that_show_most(write):
    folders = write("rocks", [(0, 1), (0, 2)] * 5 + [(0, 1, 2, 3)] * 2)
    for seed in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            unit = read_split(*folders, train=1, seed=seed)
        assert unit.classes.ids == (0, 1, 2, 3)


def test_drawn_part_of_a_training_folder_shows_classes_of_one_image_too(write):
    training, test = write("train", [(0, 1)] * 12 + [(0, 2)]), write("val", [(0, 1, 2)])
    for seed in range(4):
        unit = read_split(*training, test_images=test[0], test_masks=test[1], train=2, seed=seed)
        assert unit.classes.ids == (0, 1, 2)


def test_images_of_the_same_classes_are_drawn_plainly(write):
    unit = read_split(*write("rocks", [(0, 1)] * 10), train=4, seed=7)
    plain = numpy_stream(7, "split").permutation(10)[:4]
    assert _ids(unit.training) == [f"{i:02}" for i in sorted(plain)]


def test_ignored_ids_count_as_unlabelled_in_training_and_test(write):
    folders = write("street", [(0, 1, 11)] * 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unit = read_split(*folders, ignore=[11])
    assert unit.classes.ids == (0, 1)
    for sample in (*unit.training, *unit.test):
        assert set(np.unique(sample.mask)) == {0, 1, 255}
        assert (sample.mask[16:24] == 255).all()
    assert read_split(*folders).classes.ids == (0, 1, 11)
    with pytest.raises(InputError, match="cannot ignore id 256"):
        read_split(*folders, ignore=[256])
    with pytest.raises(InputError, match="only one class"):
        read_split(*folders, ignore=[11, 1])


def test_ignored_id_of_the_test_set_alone_is_not_warned_of(write):
    training, test = write("train", [(0, 1)] * 2), write("val", [(0, 1, 11)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unit = read_split(*training, test_images=test[0], test_masks=test[1], ignore=[11])
    assert (unit.test[0].mask[16:24] == 255).all()


def test_a_file_that_changes_between_two_readings_is_named(write):
    unit = read_split(*write("rocks", [(0, 1)] * 4), train=1)
    before = unit.test[0]
    assert np.array_equal(unit.test[0].mask, before.mask)
    _, path = unit.test.paths[0]
    Image.fromarray(1 - before.mask).save(path)
    os.utime(path, (1, 1))  # as if its clock had not ticked
    for again in (unit.test, unit.test[:1]):
        with pytest.raises(InputError, match=rf"{path.name} has changed since it was first read"):
            again[0]


def test_names_match_in_either_form_of_unicode(write):
    images, masks = write("coins", [(0, 1)] * 2)
    (images / "00.jpg").rename(images / "mu\u0308nze.jpg")
    (masks / "00.png").rename(masks / "m\u00fcnze.png")
    assert len(read_split(images, masks, train=1).test) == 1
