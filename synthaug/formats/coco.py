"""COCO instances JSON: class-id masks to run-length annotations and back, without loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from synthaug import files
from synthaug.errors import InputError
from synthaug.sample import ClassMap, Sample

INSTANCES = "instances.json"
"""Its name in a bank's folder."""
FARTHEST_PX = 100_000
"""Largest side of an image, and farthest corner of a polygon."""


def write_instances(samples: Iterable[Sample], classes: ClassMap, path: str | Path) -> None:
    """Write samples as COCO instances; the file appears only when it is complete.

    One annotation per connected component (8 neighbours) of every class but the background, as
    compressed RLE. A category's id is its class id; the background's id stands in ``info``.
    Ignored pixels belong to no annotation and read back as background. ``file_name`` is
    ``images/ID.png``, relative to the bank.

    Args:
        samples: for example a `Bank`, which shows the kept samples.
        classes: classes of the masks.
        path: the JSON file, usually ``BANK/instances.json``.

    Raises:
        InputError: the file cannot be written.
    """
    background = classes.ids[0] if classes.ids else 0
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, sample in enumerate(samples, start=1):
        height, width = sample.size
        images.append(
            {
                "id": number,
                "file_name": f"images/{sample.id}.png",
                "height": height,
                "width": width,
            }
        )
        for class_id in classes.ids:
            if class_id != background:
                for component in _components(sample.mask == class_id):
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": number,
                            "category_id": class_id,
                            "iscrowd": 0,
                            **_annotate(component),
                        }
                    )
    categories = [
        {"id": class_id, "name": name, "supercategory": "object"}
        for class_id, name in zip(classes.ids, classes.names, strict=True)
        if class_id != background
    ]
    value = {
        "info": {
            "description": "synthetic samples, machine-generated",
            "background_id": background,
            "background_name": classes.names[0] if classes.names else "",
        },
        "licenses": [],
        "categories": categories,
        "images": images,
        "annotations": annotations,
    }
    files.write_text(path, json.dumps(value) + "\n")


def read_instances(path: str | Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Read a COCO instances file as masks of category ids.

    Args:
        path: JSON file with compressed or uncompressed RLE or polygons; annotations whose list of
            polygons is empty are left out. Where annotations overlap, the later one wins; crowd
            regions become 255 (ignore).

    Yields:
        ``file_name`` and the (H, W) uint8 mask of every image, in the file's order.

    Raises:
        InputError: the file is missing or damaged, two images have one id or two categories of
            other names have one, or an annotation is of no image, has a category id that is not in
            0..254, or an outline that cannot be drawn.
    """
    value = _load(path)
    with _understood(path):
        background = int(_about(value).get("background_id", 0))
        for image, annotations in _by_image(value, path):
            mask = np.full((image["height"], image["width"]), background, np.uint8)
            for annotation in annotations:
                inside = _draw(annotation, image, path)
                mask[inside] = 255 if _is_crowd(annotation) else annotation["category_id"]
            yield image["file_name"], mask


def read_objects(
    path: str | Path, wanted: Callable[[str], bool] = lambda file_name: True
) -> Iterator[tuple[str, list[tuple[int, NDArray[np.bool_]]]]]:
    """Read a COCO instances file object by object.

    Args:
        path: as `read_instances` takes it. Crowd regions are left out.
        wanted: whether an image is to be read, by its ``file_name``.

    Yields:
        ``file_name`` and (category id, (H, W) bool) of every object of every image, in the file's
        order; where two overlap, the later one is in front.

    Raises:
        InputError: as `read_instances`.
    """
    value = _load(path)
    with _understood(path):
        for image, annotations in _by_image(value, path):
            if not wanted(image["file_name"]):
                continue
            objects = [
                (annotation["category_id"], _draw(annotation, image, path))
                for annotation in annotations
                if not _is_crowd(annotation)
            ]
            yield image["file_name"], objects


def read_names(path: str | Path) -> dict[int, str]:
    """Read the names of a COCO file's categories by id.

    The background, id 0 where the file names no other, is called ``background`` unless the file
    has a name for it, as `write_instances` writes one. A category 0 that only groups the others, as
    Roboflow writes it, is no name for it.

    Raises:
        InputError: the file is missing or damaged, or holds no categories, two names for one id, or
            annotations of a category 0 that is not the background.
    """
    value = _load(path)
    with _understood(path):
        about = _about(value)
        names = {int(about.get("background_id", 0)): str(about.get("background_name", ""))}
        names = {class_id: name or "background" for class_id, name in names.items()}
        annotations = value.get("annotations") or ()
        found = _categories(value["categories"], path)
        if found.get(0, "").lower() != "background":
            _refuse_background(value, [each.get("category_id") for each in annotations], path)
        if "background_id" not in about and 0 in found:
            others = [kind for kind in value["categories"] if int(kind["id"]) != 0]
            if found[0] in {kind.get(key) for kind in others for key in ("name", "supercategory")}:
                del found[0]
        return names | found


def _load(path: str | Path) -> Any:
    return files.read_json(path, "COCO file", "export it again")


def _about(value: Any) -> dict[str, Any]:
    """What the file says of itself; some tools write null or a list."""
    about = value.get("info")
    return about if isinstance(about, dict) else {}


def _is_crowd(annotation: dict[str, Any]) -> bool:
    return bool(int(annotation.get("iscrowd") or 0))  # some tools write "0"


def _refuse_background(value: Any, used: Iterable[Any], path: str | Path) -> None:
    if 0 in used and "background_id" not in _about(value):
        raise InputError(
            f"{path} has a category 0, which masks have for the background: renumber "
            "categories into 1..254"
        )


def _categories(listed: Iterable[Any], path: str | Path) -> dict[int, str]:
    """Names by id."""
    names: dict[int, str] = {}
    for kind in listed:
        class_id, name = int(kind["id"]), str(kind.get("name", kind["id"]))
        if names.setdefault(class_id, name) != name:
            raise InputError(
                f"{path} has two categories of id {class_id}, {names[class_id]} and {name}: "
                "renumber them when you merge files"
            )
    return names


@contextmanager
def _understood(path: str | Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a COCO instances file ({error!r}): export it again"
        ) from error


def _by_image(
    value: Any, path: str | Path
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every image with its annotations that have an outline, in the file's order."""
    _categories(value.get("categories") or (), path)
    images: dict[Any, dict[str, Any]] = {}
    for image in value["images"]:
        if "file_name" not in image:
            raise InputError(
                f"{path}: image {image['id']} has no file_name: add it (LVIS: the last part of "
                "coco_url)"
            )
        first = images.setdefault(image["id"], image)
        if first != image:
            raise InputError(
                f"{path} has two images of id {image['id']}, {first['file_name']} and "
                f"{image['file_name']}: renumber them when you merge files"
            )
        sides = image["width"], image["height"]
        if not all(type(side) is int and 0 < side <= FARTHEST_PX for side in sides):
            raise InputError(
                f"{path} says that {image['file_name']} is {sides[0]!r}x{sides[1]!r} px: "
                "export it again with the images' sizes"
            )
    annotations: dict[Any, list[dict[str, Any]]] = {number: [] for number in images}
    for annotation in value["annotations"]:
        if annotation["image_id"] not in images:
            raise InputError(
                f"{path}: annotation {annotation.get('id')} is of image {annotation['image_id']}, "
                "which is not among the images: export both together"
            )
        category = annotation["category_id"]
        _refuse_background(value, [category], path)
        if type(category) is not int or not 0 <= category < 255:
            raise InputError(
                f"{_where(annotation, images[annotation['image_id']], path)} has category id "
                f"{category!r}: renumber categories into 1..254"
            )
        if annotation.get("segmentation") != []:
            annotations[annotation["image_id"]].append(annotation)
    for image in value["images"]:
        yield image, annotations[image["id"]]


def _where(annotation: dict[str, Any], image: dict[str, Any], path: str | Path) -> str:
    return f"{path}: annotation {annotation.get('id')} of {image['file_name']}"


def _components(region: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    count, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        yield labels == label


def _annotate(region: NDArray[np.bool_]) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(region, dtype=np.uint8))
    return {
        "segmentation": {
            "size": [int(side) for side in encoded["size"]],
            "counts": encoded["counts"].decode("ascii"),
        },
        "area": int(rle.area(encoded)),
        "bbox": [float(x) for x in rle.toBbox(encoded)],
    }


def _draw(annotation: dict[str, Any], image: dict[str, Any], path: str | Path) -> NDArray[np.bool_]:
    """Return the (H, W) pixels of an annotation.

    Everything is checked here: of what is wrong, pycocotools draws uninitialised memory or ends
    the process.
    """
    height, width = image["height"], image["width"]
    outline = annotation.get("segmentation")
    where = _where(annotation, image, path)
    if isinstance(outline, list):
        if not all(map(_is_polygon, outline)):
            raise InputError(
                f"{where} has a polygon that is not x and y of three points or more: mend or "
                "remove it"
            )
        encoded = rle.merge(rle.frPyObjects(outline, height, width))
        return np.asarray(rle.decode(encoded), dtype=bool)
    if not isinstance(outline, dict):
        raise InputError(f"{where} has no outline, neither polygons nor RLE: draw or remove it")
    if outline.get("size") != [height, width]:
        raise InputError(
            f"{where} has an RLE of size {outline.get('size')}, but the image is "
            f"{[height, width]}: export it again"
        )
    counts = outline.get("counts")
    counts = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        raise InputError(f"{where} has a damaged RLE: export it again")
    if sum(counts) != height * width:
        raise InputError(
            f"{where} has an RLE of {sum(counts)} pixels, not {height * width}: export it again"
        )
    flags = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flags.reshape(height, width, order="F")


def _is_polygon(points: Any) -> bool:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    return all(isinstance(x, int | float) and abs(x) <= FARTHEST_PX for x in points)


def _decompress(text: str) -> list[int] | None:
    """Read COCO's compressed run lengths, None if they are damaged.

    A number has 5 bits a character, the lowest first; from the fourth on it is the difference to
    the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code >> 4 & 1) << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return None if shift else counts
