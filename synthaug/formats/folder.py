"""Image files and index-PNG masks, one by one or folder by folder."""

from __future__ import annotations

import io
import struct
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from synthaug import files
from synthaug.errors import InputError
from synthaug.sample import IGNORE_ID, Sample

MIN_SIDE_PX = 32
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".j2k")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
LOSSY = ("JPEG", "JPEG2000", "MPO", "WEBP")
"""Formats, as Pillow names them, whose pixels may differ from those that were saved."""
_MEND_JSON = (
    "draw its annotations into index PNGs first, as synthaug.formats.coco.read_instances gives them"
)
_REDRAW = "export it as PNG from where it was drawn, or threshold it if it is black and white"
SOFT_SHARE = 0.05
"""Greys of which less lies within an area of one value are edges, not classes."""
PAGED = ("GIF", "PNG", "TIFF", "WEBP")
"""Formats that may hold several pictures that are not one picture's thumbnails or layers."""
Colours = dict[int, tuple[tuple[int, ...] | None, Path]]
"""RGB that palettes give an id, None if several, and the first mask that does, by id."""


def read_image(path: str | Path) -> tuple[NDArray[np.uint8], bool]:
    """Read a photograph.

    Args:
        path: any file that Pillow reads, 8 bits per channel, grey or colour; turned as its EXIF
            orientation says.

    Returns:
        (H, W, 3) uint8 RGB, and whether the file is grey.

    Raises:
        InputError: the file is missing, unreadable, truncated, of 16 bits, under 32 px a side, of
            more pixels than Pillow takes, or holds several pictures.
    """
    picture = _open(path, "image")
    deep = max(_png_bits(path, picture), *_tiff_bits(picture)) > 8
    if picture.mode.startswith("I") or picture.mode == "F" or deep:
        raise InputError(
            f"image {path} has more than 8 bits per channel (mode {picture.mode}): "
            "scale it to 0..255 and save it as an 8-bit PNG"
        )
    grey = picture.mode in ("1", "L", "LA")
    image = np.array(picture.convert("RGB"))
    if min(image.shape[:2]) < MIN_SIDE_PX:
        raise InputError(
            f"image {path} is {image.shape[1]}x{image.shape[0]} px: "
            f"at least {MIN_SIDE_PX} px a side are needed, enlarge it first"
        )
    return image, grey


def read_mask(path: str | Path, colours: Colours | None = None) -> NDArray[np.uint8]:
    """Read a mask of class ids.

    Args:
        path: an index PNG: grey (value = id) or palette (index = id); 255 = ignore. An RGB file
            is accepted when its three channels are equal, 16 bits when no id is above 255 or 0
            and 65535 are the only ones, which become 0 and 255.
        colours: what the palettes of masks read before say of their ids; this one's are added.

    Returns:
        (H, W) uint8 ids.

    Raises:
        InputError: the file is missing, unreadable, stored with losses, a colour picture, or
            black and white with soft edges; or its palette gives an id the colour that
            another id has in an earlier mask.

    Warns:
        UserWarning: its palette gives an id another colour than an earlier mask's.
    """
    picture = _open(path, "mask")
    ids = _read_ids(path, picture)
    _refuse_soft(path, ids)
    if colours is not None and picture.mode == "P":
        _compare_colours(path, ids, picture, colours)
    return ids


def _compare_colours(
    path: str | Path, ids: NDArray[np.uint8], picture: Image.Image, colours: Colours
) -> None:
    """Refuse a mask whose ids mean other classes than in the masks before, by their colours."""
    listed = np.reshape(picture.getpalette() or (), (-1, 3)).tolist()
    for value in np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[:IGNORE_ID]).tolist():
        if value >= len(listed):
            break
        colour = tuple(listed[value])
        known, first = colours.setdefault(value, (colour, Path(path)))
        if known is None or known == colour:
            continue
        said = f"masks {first} and {path} give id {value} the colours {known} and {colour}"
        if any(other == colour for other, _ in colours.values()):
            raise InputError(
                f"{said}, which is another id's: save all with one palette, the same colour the "
                "same id in every file"
            )
        warnings.warn(f"{said}: see that it is one class", UserWarning, stacklevel=2)
        colours[value] = (None, first)  # not compared any more


def _read_ids(path: str | Path, picture: Image.Image) -> NDArray[np.uint8]:
    if picture.format in LOSSY or picture.info.get("compression") in ("jpeg", "tiff_jpeg"):
        raise InputError(
            f"mask {path} is a {picture.format} file whose compression can change ids: {_REDRAW}"
        )
    if picture.format == "TIFF" and not _stores_ids(picture):
        raise InputError(
            f"mask {path} is a TIFF file of few bits or inverted grey, whose ids Pillow changes: "
            "export it as PNG"
        )
    bits = max(_png_bits(path, picture), *_tiff_bits(picture))
    if picture.mode == "L" and bits in (2, 4):  # Pillow spreads these ids over 0..255
        return np.array(picture) // np.uint8(255 // (2**bits - 1))
    if picture.mode in ("L", "P"):
        return np.array(picture)
    if picture.mode == "1":
        return np.array(picture.convert("L")) // 255
    if picture.mode.startswith("I"):
        ids = np.array(picture)
        if ids.max() == 65535 and np.isin(ids, (0, 65535)).all():
            return np.where(ids > 0, 255, 0).astype(np.uint8)
        if ids.min() < 0 or ids.max() > 255:
            raise InputError(
                f"mask {path} has ids up to {ids.max()}: renumber them into 0..254 (255 = ignore), "
                "with one id for all objects of a kind"
            )
        return ids.astype(np.uint8)
    if picture.mode in ("RGB", "RGBA") and bits < 16:
        colours = np.array(picture.convert("RGB"))
        clear = picture.mode == "RGBA" and np.ptp(np.array(picture)[..., 3]) > 0
        if clear and (colours == colours[0, 0]).all():
            raise InputError(
                f"mask {path} holds its object in the transparency: save ids in an index PNG"
            )
        if (colours == colours[..., :1]).all():
            return np.ascontiguousarray(colours[..., 0])
        found, counts = np.unique(colours.reshape(-1, 3), axis=0, return_counts=True)
        common = found[np.argsort(-counts, kind="stable")[:3]].tolist()
        raise InputError(
            f"mask {path} is a colour picture ({len(found)} colours, most of all "
            f"{', '.join(str(tuple(colour)) for colour in common)}), not class ids: write ids "
            "0, 1, 2, ... in a grey or palette PNG, the same colour the same id in every file"
        )
    raise InputError(
        f"mask {path} has mode {picture.mode}, {bits} bits: save class ids as an 8-bit index PNG"
    )


def _refuse_soft(path: str | Path, ids: NDArray[np.uint8]) -> None:
    """Refuse a black-and-white mask whose edges were smoothed, by JPEG or resizing.

    Most of it is black or white. Its greys are several, reach past the middle, and lie between the
    two alone: next to none of their pixels is the centre of 3 x 3 of one id, as a class's are.
    """
    import cv2

    counts = np.bincount(ids.ravel(), minlength=256)
    greys = np.flatnonzero(counts[1:255]) + 1
    edges = int(counts[greys].sum())
    two = counts[0] and counts[255] and 2 * edges <= ids.size
    if not two or len(greys) < 3 or greys[-1] < 128:
        return
    around = np.ones((3, 3), np.uint8)
    uniform = cv2.dilate(ids, around) == cv2.erode(ids, around)
    inside = np.count_nonzero(uniform & (ids > 0) & (ids < 255))
    if inside < SOFT_SHARE * edges:
        raise InputError(
            f"mask {path} is black and white with soft edges, of {len(greys)} greys: threshold it "
            "at 128 and save it as PNG"
        )


def read_pair(
    image_path: str | Path,
    mask_path: str | Path,
    sample_id: str = "",
    colours: Colours | None = None,
) -> Sample:
    """Read one labelled pair; ``colours`` as `read_mask` takes them.

    Raises:
        InputError: as `read_image` and `read_mask`, or the two differ in size.
    """
    image, grey = read_image(image_path)
    mask = read_mask(mask_path, colours)
    if image.shape[:2] != mask.shape:
        raise InputError(
            f"image {image_path} is {image.shape[1]}x{image.shape[0]} px but mask {mask_path} is "
            f"{mask.shape[1]}x{mask.shape[0]}: {_mend_size(image_path, image, mask)}"
        )
    return Sample(image, mask, sample_id or Path(image_path).stem, grey)


def _mend_size(path: str | Path, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> str:
    if image.shape[1::-1] == mask.shape:
        with suppress(OSError, SyntaxError, ValueError), Image.open(path) as picture:
            if picture.getexif().get(ExifTags.Base.Orientation, 1) > 4:
                return "the image is turned by its EXIF tag, turn the mask likewise"
    return "export both at one size"


def read_pairs(images: str | Path, masks: str | Path) -> list[Sample]:
    """Read the pairs of two folders, matched by file stem, sorted by name.

    Raises:
        InputError: as `match_pairs`, or `read_pair` refuses one, or palettes differ.

    Warns:
        UserWarning: masks have no image.
    """
    colours: Colours = {}
    paths = list(match_pairs(images, masks))
    warn_of_lone_masks(masks, (mask for _, mask in paths))
    return [read_pair(image, mask, "", colours) for image, mask in paths]


def match_pairs(images: str | Path, masks: str | Path) -> Iterator[tuple[Path, Path]]:
    """Match the files of two folders by stem, in the order of the images' names.

    Raises:
        InputError: as `list_images`, one folder for both, or an image has no mask.
    """
    if Path(images).resolve() == Path(masks).resolve():
        raise InputError(
            f"{images} is named for the images and for the masks: put the masks into a folder of "
            "their own, named as their images"
        )
    by_stem = {plain_stem(path): path for path in list_images(masks, "masks")}
    for path in list_images(images, "images"):
        stem = plain_stem(path)
        if stem not in by_stem:
            raise InputError(
                f"image {path} has no mask {Path(masks) / path.stem}.png: "
                f"{_mend_name(path.stem, Path(masks))}"
            )
        yield path, by_stem[stem]


def warn_of_lone_masks(masks: str | Path, used: Iterable[Path]) -> None:
    """Warn, in the name of the caller's caller, of masks in a folder that no image has.

    Args:
        masks: the folder.
        used: masks that belong to images.
    """
    taken = set(used)
    alone = [path.name for path in list_images(masks, "masks") if path not in taken]
    if alone:
        names = f"{', '.join(alone[:3])}{', ...' * (len(alone) > 3)}"
        warnings.warn(
            f"{len(alone)} mask(s) in {masks} have no image and are left out: {names}",
            UserWarning,
            stacklevel=3,
        )


def plain_stem(path: PurePath) -> str:
    """Return a file's stem in one of the forms that Unicode has for letters with marks."""
    return unicodedata.normalize("NFC", path.stem)


def _mend_name(stem: str, masks: Path) -> str:
    """Say how to mend a missing mask, by the file that is probably meant."""
    for found in sorted(path for path in masks.iterdir() if is_picture(path)):
        if found.stem == stem:
            return f"{found.name} may have changed ids by its compression, {_REDRAW}"
        if found.stem.lower().startswith(stem.lower()) and not found.stem[len(stem) :].isalnum():
            return f"rename {found.name}, names must match but for the ending"
    return "add it"


def list_images(folder: str | Path, what: str = "images") -> list[Path]:
    """Return the picture files of a folder, sorted by name; hidden files do not count.

    Args:
        folder: where to look.
        what: for the error's line; ``masks`` are looked for in formats without losses alone.

    Raises:
        InputError: the folder is missing, holds no picture, or two of one stem.
    """
    folder = Path(folder)
    if what == "masks" and folder.suffix.lower() == ".json" and folder.is_file():
        raise InputError(f"{folder} is no folder of masks: {_MEND_JSON}")
    if not folder.is_dir():
        raise InputError(f"no folder of {what} at {folder}: check the path")
    suffixes = MASK_SUFFIXES if what == "masks" else IMAGE_SUFFIXES
    paths = sorted(path for path in folder.iterdir() if is_picture(path, suffixes))
    if not paths:
        deeper = next((p for p in sorted(folder.glob("*/*")) if is_picture(p, suffixes)), None)
        hint = f"; sub-folders are not read: name {deeper.parent}" if deeper else ""
        raise InputError(f"folder {folder} holds no {what}: expected {', '.join(suffixes)}{hint}")
    stem, count = Counter(path.stem for path in paths).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"{folder} holds several pictures named {stem}: keep one, or rename the others"
        )
    return paths


def is_picture(path: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> bool:
    """Whether a path is a file named like a picture, and not hidden."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def image_png(sample: Sample) -> bytes:
    """Encode a sample's image as PNG bytes (one channel when it is grey)."""
    return _png(sample.image[..., 0] if sample.grey else sample.image)


def mask_png(mask: NDArray[np.uint8]) -> bytes:
    """Encode (H, W) uint8 ids as an index PNG: palette for the eye, indices are the ids."""
    picture = Image.fromarray(mask)
    picture.putpalette(palette().tobytes())
    return _encode(picture)


def palette() -> NDArray[np.uint8]:
    """Return 256 distinct colours, (256, 3) uint8, as PASCAL VOC orders them; 255 is light grey."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            value = (ids >> (3 * bit + channel)) & 1
            colours[:, channel] |= (value << (7 - bit)).astype(np.uint8)
    colours[255] = 224
    return colours


def _open(path: str | Path, what: str) -> Image.Image:
    try:
        # No path: Pillow would map a grey TIFF into memory, which scrambles one that is turned.
        with Path(path).open("rb") as file:
            picture = Image.open(file)
            pages = getattr(picture, "n_frames", 1) if picture.format in PAGED else 1
            picture.load()
            _turn_upright(picture)
    except FileNotFoundError as error:
        raise InputError(f"no {what} at {path}: check the path") from error
    except IsADirectoryError as error:
        raise InputError(
            f"{path} is a folder, not one {what}: use --images DIR --masks DIR"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"cannot read {what} {path}: {str(error).partition(',')[0]}; scale it down"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if what == "mask" and Path(path).suffix.lower() == ".json":
            raise InputError(f"{path} is no mask: {_MEND_JSON}") from error
        if Path(path).suffix.lower() in (".npy", ".npz", ".mat"):
            raise InputError(f"{path} holds an array, no picture: save it as a PNG") from error
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise InputError(
            f"cannot read {what} {path}{reason}: the file is damaged or not a picture, "
            "export it again"
        ) from error
    if pages > 1:
        raise InputError(f"{what} {path} holds {pages} pictures: save the one you mean as a PNG")
    return picture


def _png_bits(path: str | Path, picture: Image.Image) -> int:
    """Bits per channel that a PNG file states, which Pillow's mode hides; 8 for other files."""
    if picture.format != "PNG":
        return 8
    with Path(path).open("rb") as file:
        return file.read(25)[24]


def _tiff_bits(picture: Image.Image) -> tuple[int, ...]:
    """Bits of each channel that a TIFF file states, which Pillow's mode hides; 1 for others."""
    return tuple(getattr(picture, "tag_v2", {}).get(258, (1,)))


def _stores_ids(tiff: Image.Image) -> bool:
    """Whether Pillow gives a TIFF's values as they are: 8 or more bits, and 0 is black."""
    photometric = getattr(tiff, "tag_v2", {}).get(262, 1)
    return photometric != 0 and (min(_tiff_bits(tiff)) >= 8 or tiff.mode in ("1", "P"))


def _turn_upright(picture: Image.Image) -> None:
    with suppress(struct.error, KeyError, SyntaxError, TypeError, ValueError):  # of damaged EXIF
        ImageOps.exif_transpose(picture, in_place=True)


def _png(array: NDArray[np.uint8]) -> bytes:
    return _encode(Image.fromarray(np.ascontiguousarray(array)))


def _encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def write_pair(folder: Path, name: str, sample: Sample) -> dict[str, str]:
    """Write ``images/NAME.png`` and ``masks/NAME.png`` below ``folder``.

    Returns:
        Relative paths and SHA-256 of both files, keys ``image mask image_sha256 mask_sha256``.
    """
    record = {}
    for kind, data in (("image", image_png(sample)), ("mask", mask_png(sample.mask))):
        relative = f"{kind}s/{name}.png"
        files.write_bytes(folder / relative, data)
        record[kind] = relative
        record[f"{kind}_sha256"] = files.sha256_bytes(data)
    return record
