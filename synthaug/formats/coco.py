"""COCO instances JSON: class-id masks to run-length annotations and back, without loss."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
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
        path: JSON file with compressed or uncompressed RLE or polygons. Where annotations
            overlap, the later one wins; crowd regions become 255 (ignore).

    Yields:
        ``file_name`` and the (H, W) uint8 mask of every image, in the file's order.

    Raises:
        InputError: the file is missing or damaged, or holds category ids above 254.
    """
    value = files.read_json(path, "COCO file")
    with _understood(path):
        background = int(value.get("info", {}).get("background_id", 0))
        for image, annotations in _by_image(value, path):
            mask = np.full((image["height"], image["width"]), background, np.uint8)
            for annotation in annotations:
                inside = _decode(annotation["segmentation"], *mask.shape)
                mask[inside] = 255 if annotation.get("iscrowd") else annotation["category_id"]
            yield image["file_name"], mask


def read_objects(path: str | Path) -> Iterator[tuple[str, list[tuple[int, NDArray[np.bool_]]]]]:
    """Read a COCO instances file object by object.

    Args:
        path: as `read_instances` takes it. Crowd regions are left out.

    Yields:
        ``file_name`` and (category id, (H, W) bool) of every object of every image, in the file's
        order; where two overlap, the later one is in front.

    Raises:
        InputError: as `read_instances`.
    """
    value = files.read_json(path, "COCO file")
    with _understood(path):
        for image, annotations in _by_image(value, path):
            size = image["height"], image["width"]
            objects = [
                (int(annotation["category_id"]), _decode(annotation["segmentation"], *size))
                for annotation in annotations
                if not annotation.get("iscrowd")
            ]
            yield image["file_name"], objects


def read_names(path: str | Path) -> dict[int, str]:
    """Read the names of a COCO file's categories by id.

    The background, id 0 where the file names no other, is called ``background`` unless the file
    has a name for it, as `write_instances` writes one.

    Raises:
        InputError: the file is missing or damaged, or holds no categories.
    """
    value = files.read_json(path, "COCO file")
    with _understood(path):
        about = value.get("info", {})
        names = {int(about.get("background_id", 0)): str(about.get("background_name", ""))}
        names = {class_id: name or "background" for class_id, name in names.items()}
        return names | {int(kind["id"]): str(kind["name"]) for kind in value["categories"]}


@contextmanager
def _understood(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a COCO instances file ({error!r}): export it again"
        ) from error


def _by_image(
    value: Any, path: str | Path
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every image with its annotations, in the file's order."""
    annotations: dict[int, list[dict[str, Any]]] = {}
    for annotation in value["annotations"]:
        if not 0 <= annotation["category_id"] < 255:
            raise InputError(
                f"{path} holds category id {annotation['category_id']}: "
                "renumber categories into 1..254"
            )
        annotations.setdefault(annotation["image_id"], []).append(annotation)
    for image in value["images"]:
        yield image, annotations.get(image["id"], [])


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


def _decode(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    if isinstance(segmentation, list):
        encoded = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = rle.frPyObjects(segmentation, height, width)
    else:
        encoded = segmentation
    return np.asarray(rle.decode(encoded), dtype=bool)
