from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from synthaug.errors import InputError
from synthaug.formats import folder
from synthaug.formats.splits import read_split
from synthaug.sample import Sample


@pytest.fixture
def ids():
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:30] = 3
    mask[0] = 255
    return mask


def _save(path, array):
    Image.fromarray(array).save(path)
    return path


def _noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_colour_and_grey_pictures(tmp_path):
    colour, grey = _noise(40, 50, 3), _noise(40, 50)
    image, is_grey = folder.read_image(_save(tmp_path / "c.png", colour))
    assert np.array_equal(image, colour)
    assert not is_grey
    image, is_grey = folder.read_image(_save(tmp_path / "g.png", grey))
    assert np.array_equal(image, np.repeat(grey[..., None], 3, axis=2))
    assert is_grey


def test_transparent_picture_loses_its_alpha(tmp_path):
    image, is_grey = folder.read_image(_save(tmp_path / "a.png", _noise(40, 50, 4)))
    assert image.shape == (40, 50, 3)
    assert not is_grey


def _photo(orientation):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 200  # the upper left corner as it is seen
    stored = Image.fromarray(picture)
    if orientation in (3, 6):
        undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
        stored = stored.transpose(undo)
    return picture, stored


def _exif(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_photo_and_mask_are_turned_as_their_exif_says(tmp_path, suffix, orientation):
    picture, stored = _photo(orientation)
    stored.save(tmp_path / f"p.{suffix}", exif=_exif(orientation))
    image, _ = folder.read_image(tmp_path / f"p.{suffix}")
    assert image.shape == picture.shape
    assert np.abs(image.astype(int) - picture).max() < 9
    if suffix == "png":
        stored.convert("L").save(tmp_path / f"m.{suffix}", exif=_exif(orientation))
        assert np.array_equal(folder.read_mask(tmp_path / f"m.{suffix}"), picture[..., 0])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_uncompressed_grey_tiff_is_turned_not_scrambled(tmp_path, orientation):
    stored = _noise(40, 50)
    path = tmp_path / "m.tif"
    Image.fromarray(stored).save(path, tiffinfo={0x112: orientation})
    turns = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]
    assert np.array_equal(folder.read_image(path)[0][..., 0], np.rot90(stored, turns))
    assert np.array_equal(folder.read_mask(path), np.rot90(stored, turns))


def test_damaged_exif_turns_nothing(tmp_path):
    picture, stored = _photo(1)
    stored.save(tmp_path / "p.png", exif=b"Exif\0\0no TIFF header")
    assert np.array_equal(folder.read_image(tmp_path / "p.png")[0], picture)


def test_sixteen_bits_are_refused(tmp_path):
    path = _save(tmp_path / "deep.png", np.zeros((40, 50), np.uint16))
    with pytest.raises(InputError, match=r"deep.png has more than 8 bits .*8-bit PNG"):
        folder.read_image(path)


def test_sixteen_bits_of_colour_in_a_tiff_are_refused(tmp_path):
    header = struct.pack("<2sHI", b"II", 42, 8)
    pixels, entries = np.full((40, 50, 3), 3, "<u2").tobytes(), []
    data = 8 + 2 + 12 * 8 + 4
    for tag, kind, count, value in (
        *((256, 3, 1, 50), (257, 3, 1, 40), (258, 3, 3, data), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, data + 6), (277, 3, 1, 3), (279, 4, 1, len(pixels))),
    ):
        entries.append(struct.pack("<HHII", tag, kind, count, value))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    (tmp_path / "deep.tif").write_bytes(
        header + directory + struct.pack("<3H", 16, 16, 16) + pixels
    )
    with pytest.raises(InputError, match=r"deep.tif has more than 8 bits .*8-bit PNG"):
        folder.read_image(tmp_path / "deep.tif")


def png(rows, bits, kind):
    """Write a PNG by hand: bits per channel and colour type as given."""

    def chunk(name, data):
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    height, width = rows.shape[:2]
    values = rows.reshape(height, -1)[..., None] >> np.arange(bits)[::-1] & 1
    packed = np.packbits(values.astype(np.uint8).reshape(height, -1), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bits_of_colour_are_refused(tmp_path):
    path = tmp_path / "deep.png"
    path.write_bytes(png(np.full((40, 50, 3), 3), 16, 2))
    with pytest.raises(InputError, match=r"deep.png has more than 8 bits .*8-bit PNG"):
        folder.read_image(path)
    with pytest.raises(InputError, match=r"mask .*deep.png has mode RGB, 16 bits: save class"):
        folder.read_mask(path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_ids_of_few_bits_are_read_as_written(tmp_path, bits):
    ids = np.arange(40 * 51).reshape(40, 51) % 2**bits
    (tmp_path / "m.png").write_bytes(png(ids, bits, 0))
    assert np.array_equal(folder.read_mask(tmp_path / "m.png"), ids)


@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_masks_are_read_as_written_or_refused(tmp_path, ids, photometric):
    path = tmp_path / "m.tif"
    Image.fromarray(ids).save(path, tiffinfo={262: photometric})
    if photometric:
        assert np.array_equal(folder.read_mask(path), ids)
    else:
        with pytest.raises(InputError, match=r"inverted grey.*export it as PNG"):
            folder.read_mask(path)


def test_small_picture_is_refused(tmp_path):
    path = _save(tmp_path / "small.png", _noise(31, 60, 3))
    with pytest.raises(InputError, match=r"small.png is 60x31 px: at least 32"):
        folder.read_image(path)


@pytest.mark.parametrize("kind", ["truncated", "text", "empty"])
def test_damaged_picture_is_named(tmp_path, kind):
    path = _save(tmp_path / "bad.png", _noise(200, 200, 3))
    data = {"truncated": path.read_bytes()[:9000], "text": b"not a picture", "empty": b""}[kind]
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read image .*bad.png.*export it again"):
        folder.read_image(path)


def test_huge_picture_is_refused(tmp_path, monkeypatch):
    path = _save(tmp_path / "huge.png", _noise(40, 50, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 999)
    with pytest.raises(InputError, match=r"huge.png: .*2000 pixels.* 1998 pixels; scale it down$"):
        folder.read_image(path)
    with pytest.raises(InputError, match=r"cannot read mask .*huge.png"):
        folder.read_mask(path)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.png"])
def test_file_of_several_pictures_is_refused(tmp_path, name):
    first, *others = (Image.fromarray(_noise(40, 50)).rotate(angle) for angle in (0, 90, 180))
    first.save(tmp_path / name, save_all=True, append_images=others)
    with pytest.raises(InputError, match=rf"image .*{name} holds 3 pictures: save the one"):
        folder.read_image(tmp_path / name)
    with pytest.raises(InputError, match=rf"mask .*{name} holds 3 pictures: save the one"):
        folder.read_mask(tmp_path / name)


def test_preview_beside_a_photo_does_not_count(tmp_path):
    picture = Image.fromarray(np.full((40, 50, 3), 90, np.uint8))
    preview = picture.resize((10, 8))
    picture.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    assert folder.read_image(tmp_path / "a.jpg")[0].shape == (40, 50, 3)


def test_missing_file_and_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(InputError, match=r"no image at .*none.png: check the path"):
        folder.read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match=r"is a folder, not one image: use --images"):
        folder.read_image(tmp_path)


@pytest.mark.parametrize("form", ["grey", "palette", "rgb", "rgba", "int32"])
def test_mask_forms_give_the_same_ids(tmp_path, ids, form):
    path = tmp_path / "m.png"
    if form == "palette":
        path.write_bytes(folder.mask_png(ids))
        assert Image.open(path).mode == "P"
    elif form in ("rgb", "rgba"):
        picture = np.repeat(ids[..., None], 4, axis=2)
        picture[..., 3] = 255
        Image.fromarray(picture[..., : len(form)]).save(path)
    elif form == "int32":
        Image.fromarray(ids.astype(np.uint16)).save(path)
    else:
        _save(path, ids)
    mask = folder.read_mask(path)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, ids)


def test_bilevel_mask_is_zero_and_one(tmp_path, ids):
    Image.fromarray(ids == 3).save(tmp_path / "m.png")
    assert np.array_equal(folder.read_mask(tmp_path / "m.png"), (ids == 3).astype(np.uint8))


def test_colour_mask_is_refused_with_its_commonest_colours(tmp_path):
    rendering = np.zeros((40, 50, 3), np.uint8)
    rendering[:18] = (255, 0, 0)
    path = _save(tmp_path / "m.png", rendering)
    told = r"m.png is a colour picture \(2 colours, most of all \(0, 0, 0\), \(255, 0, 0\)\)"
    with pytest.raises(InputError, match=told):
        folder.read_mask(path)
    rendering[:, 30:] = _noise(40, 20, 3)
    told = r"\(\d{3} colours, most of all (\(\d+, \d+, \d+\)(, )?){3}\), not class ids: write ids"
    with pytest.raises(InputError, match=told):
        folder.read_mask(_save(path, rendering))


@pytest.mark.parametrize("colour", [0, 255])
def test_a_mask_that_is_all_transparency_is_told_of(tmp_path, ids, colour):
    layers = np.full((40, 50, 4), colour, np.uint8)
    layers[..., 3] = np.where(ids == 3, 255, 0)
    with pytest.raises(InputError, match=r"m.png holds its object in the transparency: save ids"):
        folder.read_mask(_save(tmp_path / "m.png", layers))
    layers[..., :3] = ids[..., None]
    assert np.array_equal(folder.read_mask(_save(tmp_path / "m.png", layers)), ids)


@pytest.mark.parametrize(
    ("name", "form", "options"),
    [
        ("m.jpg", "JPEG", {}),
        ("named.png", "JPEG", {}),
        ("m.jpg", "MPO", {"save_all": True, "append_images": [Image.new("L", (8, 8))]}),
        ("m.webp", "WEBP", {}),
        ("m.tif", "TIFF", {"compression": "jpeg"}),
        ("m.jp2", "JPEG2000", {}),
        ("named.png", "JPEG2000", {}),
    ],
)
def test_mask_stored_with_losses_is_refused(tmp_path, ids, name, form, options):
    Image.fromarray(ids).save(tmp_path / name, form, **options)
    with pytest.raises(InputError, match=rf"{name} is a {form} file .*: export it as PNG from"):
        folder.read_mask(tmp_path / name)


def _discs():
    rows, columns = np.mgrid[:120, :160]
    discs = [(30, 40, 17), (80, 60, 25), (60, 125, 20)]
    return np.max([(rows - y) ** 2 + (columns - x) ** 2 <= r * r for y, x, r in discs], 0)


def _through_jpeg(mask, quality):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


@pytest.mark.parametrize(
    "soften",
    [
        lambda mask: _through_jpeg(mask, 75),
        lambda mask: _through_jpeg(mask, 95),
        lambda mask: np.array(Image.fromarray(mask).resize((320, 240), Image.Resampling.BILINEAR)),
        lambda mask: np.array(Image.fromarray(mask).resize((80, 60), Image.Resampling.BOX)),
    ],
)
def test_a_black_and_white_mask_with_soft_edges_is_refused(tmp_path, soften):
    mask = np.where(_discs(), 255, 0).astype(np.uint8)
    assert np.array_equal(folder.read_mask(_save(tmp_path / "sharp.png", mask)), mask)
    path = _save(tmp_path / "soft.png", soften(mask))
    with pytest.raises(InputError, match=r"soft.png is .* soft edges, .*: threshold it at 128"):
        folder.read_mask(path)


def test_classes_inside_an_ignored_border_are_no_soft_edges(tmp_path):
    mask = np.where(_discs(), 255, 0).astype(np.uint8)
    for number, column in enumerate((40, 60, 125)):
        mask[20 + 10 * number : 90, column : column + 1 + 3 * number] = 100 + 40 * number
    assert np.array_equal(folder.read_mask(_save(tmp_path / "m.png", mask)), mask)


def test_black_and_white_of_sixteen_bits_is_black_and_white(tmp_path):
    path = _save(tmp_path / "m.png", np.where(_discs(), 65535, 0).astype(np.uint16))
    assert np.array_equal(folder.read_mask(path), np.where(_discs(), 255, 0))


def test_one_folder_for_images_and_masks_is_refused(tmp_path, ids):
    _save(tmp_path / "a.png", ids)
    with pytest.raises(InputError, match="for the images and for the masks: put the masks into"):
        list(folder.match_pairs(tmp_path, tmp_path))


def test_ids_above_255_are_refused(tmp_path):
    path = _save(tmp_path / "m.png", np.full((40, 50), 300, np.uint16))
    with pytest.raises(InputError, match=r"m.png has ids up to 300: renumber"):
        folder.read_mask(path)


def test_pair_of_two_sizes_is_refused(tmp_path, ids):
    image = _save(tmp_path / "i.png", _noise(40, 51, 3))
    mask = _save(tmp_path / "m.png", ids)
    with pytest.raises(InputError, match=r"i.png is 51x40 px but mask .*m.png is 50x40"):
        folder.read_pair(image, mask)


def test_a_photo_that_its_exif_turns_is_told_from_a_mask_of_another_size(tmp_path):
    _, stored = _photo(6)
    stored.save(tmp_path / "p.jpg", exif=_exif(6))
    mask = _save(tmp_path / "m.png", np.zeros(stored.size[::-1], np.uint8))
    with pytest.raises(InputError, match=r"turned by its EXIF tag, turn the mask likewise"):
        folder.read_pair(tmp_path / "p.jpg", mask)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.jpg", "a.jpg may have changed ids by its compression"),
        ("a_mask.png", "rename a_mask.png, names must match"),
        ("A.png", "rename A.png, names must match"),
        ("ab.png", "a.png: add it"),
    ],
)
def test_a_mask_of_nearly_the_right_name_is_pointed_at(tmp_path, ids, name, told):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    _save(tmp_path / "images" / "a.png", ids)
    _save(tmp_path / "masks" / name, ids)
    _save(tmp_path / "masks" / "other.png", ids)
    with pytest.raises(InputError, match=told):
        folder.read_pairs(tmp_path / "images", tmp_path / "masks")


def test_a_coco_file_in_place_of_a_folder_of_masks_is_told_how_to_read(tmp_path):
    (tmp_path / "instances.json").write_text("{}")
    with pytest.raises(InputError, match=r"draw its annotations into index PNGs"):
        folder.read_pairs(tmp_path, tmp_path / "instances.json")
    with pytest.raises(InputError, match=r"instances.json is no mask: draw its annotations"):
        folder.read_mask(tmp_path / "instances.json")


def test_folders_pair_up_by_stem(tmp_path, ids):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in ("b", "a"):
        _save(tmp_path / "images" / f"{name}.jpg", _noise(40, 50, 3))
        _save(tmp_path / "masks" / f"{name}.png", ids)
    (tmp_path / "images" / "notes.txt").write_text("not a picture")
    (tmp_path / "images" / "c.png").mkdir()
    _save(tmp_path / "masks" / "a.jpg", ids)  # a rendering of the mask, not the mask
    for hidden in ("images/._a.jpg", "masks/._a.png"):
        (tmp_path / hidden).write_bytes(b"what macOS notes about a.png")
    pairs = folder.read_pairs(tmp_path / "images", tmp_path / "masks")
    assert [pair.id for pair in pairs] == ["a", "b"]
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(InputError, match=r"b.jpg has no mask .*b.png"):
        folder.read_pairs(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(InputError, match="no folder of masks"):
        folder.read_pairs(tmp_path / "images", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        folder.read_pairs(tmp_path / "empty", tmp_path / "masks")
    _save(tmp_path / "empty" / "a.jpg", ids)
    with pytest.raises(InputError, match=r"sub-folders are not read: name .*empty$"):
        folder.list_images(tmp_path)
    with pytest.raises(InputError, match=r"holds no masks: expected .png, .bmp, .tif, .tiff$"):
        folder.read_pairs(tmp_path / "images", tmp_path / "empty")


def test_masks_without_an_image_are_warned_of(tmp_path, ids):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    _save(tmp_path / "images" / "c.png", _noise(40, 50, 3))
    for name in "abcdef":
        _save(tmp_path / "masks" / f"{name}.png", ids)
    told = r"5 mask\(s\) in .*masks have no image .*: a.png, b.png, d.png, \.\.\.$"
    with pytest.warns(UserWarning, match=told):
        pairs = folder.read_pairs(tmp_path / "images", tmp_path / "masks")
    assert [pair.id for pair in pairs] == ["c"]


@pytest.mark.parametrize("name", ["a.jp2", "a.J2K"])
def test_jpeg_2000_pictures_are_listed_and_read(tmp_path, name):
    picture = _noise(40, 50, 3)
    Image.fromarray(picture).save(tmp_path / name, "JPEG2000")
    (path,) = folder.list_images(tmp_path)
    assert np.array_equal(folder.read_image(path)[0], picture)


def _write_indexed(root, palettes):
    """Write pairs whose masks show ids 0, 1 and 255 with a palette each."""
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:30], mask[0] = 1, 255
    for number, palette in enumerate(palettes):
        _save(root / "images" / f"{number}.png", _noise(40, 50, 3))
        indexed = Image.fromarray(mask)
        indexed.putpalette(palette)
        indexed.save(root / "masks" / f"{number}.png")
    return root / "images", root / "masks"


def test_palettes_that_swap_colours_are_refused(tmp_path):
    red_object, red_ground = [0, 0, 0, 200, 0, 0], [200, 0, 0, 0, 0, 0]
    folders = _write_indexed(tmp_path, [red_object, red_object, red_ground])
    told = (
        r"0.png and .*2.png give id 0 the colours \(0, 0, 0\) and \(200, 0, 0\), which is another"
    )
    with pytest.raises(InputError, match=told):
        folder.read_pairs(*folders)
    with pytest.raises(InputError, match=told):
        read_split(*folders)


def test_palettes_of_other_colours_are_warned_of_once(tmp_path):
    usual, grey = [0, 0, 0, 200, 0, 0], [0, 0, 0, 1, 1, 1]
    folders = _write_indexed(tmp_path, [usual, grey, grey])
    with pytest.warns(UserWarning, match=r"give id 1 the colours .*: see that it is one") as told:
        assert len(folder.read_pairs(*folders)) == 3
    assert len(told) == 1


def test_colours_that_no_pixel_has_say_nothing(tmp_path):
    shown = [0, 0, 0, 200, 0, 0]
    palettes = [shown, shown + [9] * 3, shown + [8] * 762, [0] * 3]  # the last has none for id 1
    assert len(folder.read_pairs(*_write_indexed(tmp_path, palettes))) == 4


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_two_pictures_of_one_name_are_refused(tmp_path, ids, kind):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        _save(tmp_path / part / "a.png", ids)
    _save(tmp_path / kind / "a.tif", ids)
    with pytest.raises(InputError, match=rf"{kind} holds several pictures named a: keep one"):
        folder.read_pairs(tmp_path / "images", tmp_path / "masks")


@pytest.mark.parametrize("grey", [False, True])
def test_written_pair_reads_back(tmp_path, ids, grey):
    image = np.repeat(_noise(40, 50, 1), 3, axis=2) if grey else _noise(40, 50, 3)
    record = folder.write_pair(tmp_path, "x", Sample(image, ids, "x", grey))
    pair = folder.read_pair(tmp_path / record["image"], tmp_path / record["mask"])
    assert np.array_equal(pair.image, image)
    assert np.array_equal(pair.mask, ids)
    assert (pair.id, pair.grey) == ("x", grey)


def test_palette_is_that_of_pascal_voc():
    colours = folder.palette()
    assert colours[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert len(np.unique(colours, axis=0)) == 256
