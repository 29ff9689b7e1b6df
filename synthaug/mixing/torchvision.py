"""SynthReplace: what `SynthAugment` does, for torchvision's v2 transforms."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from synthaug.errors import InputError
from synthaug.mixing.source import (
    SegmentedObject,
    Source,
    check_ids_fit,
    find_objects,
    is_normalised,
    objects_of,
    open_source_once,
)
from synthaug.sample import Sample, class_list, resized

_OF_THE_PICTURE = ("labels", "image_id", "orig_size", "size")
"""Entries of a target that need not be refused."""
_KINDS = {
    **dict.fromkeys(
        ("boxes", "bboxes", "box", "bbox", "bndbox", "gt_boxes"), "tv_tensors.BoundingBoxes"
    ),
    "mask": "tv_tensors.Mask",
    "masks": "one tv_tensors.Mask",
    "segmentation": "tv_tensors.Mask",
}
"""Names of entries that describe the picture whatever they hold, and what they should be."""
_POINTS = ("keypoints", "points", "landmarks", "polygon", "polygons")
"""Names of entries that a bank has nothing in place of."""


class SynthReplace(v2.Transform):  # type: ignore[misc]
    """Replace image, masks, boxes and labels by a synthetic pair from a bank or a generator.

    Works on any nesting of tuples, lists and dicts that holds one ``tv_tensors.Image``. It draws
    from PyTorch's generator, which differs per `DataLoader` worker and epoch. Put it first.

    - ``Image`` (1 or 3, H, W): uint8 in [0, 255] or float in [0, 1], returned likewise.
    - ``Mask`` (H, W) or (1, H, W): class ids; True on the objects where it is bool. Under the key
      ``"masks"``: (N, H, W), one 0/1 mask per object.
    - ``BoundingBoxes``: one per object, in the format that came in.
    - a plain tensor ``"labels"`` beside boxes or masks in a dict: the class ids of the objects.
      ``"image_id"``, ``"orig_size"``, ``"size"`` and numbers stay. Where there are boxes or masks
      of objects, other plain tensors, arrays and lists of values (``"area"``, ``"iscrowd"``) are
      refused: they would tell of the objects that have gone.
    - On a hit, masks, boxes, polygons and points that are plain tensors, arrays, lists or PIL
      images are refused by their usual names, as is any other array of two or more dimensions:
      they would still describe the old image.
      ``torchvision.datasets.wrap_dataset_for_transforms_v2`` turns the targets of torchvision's
      own datasets into what is replaced.

    A generator that paints masks (``oasis``) gives the image a new look for its own mask, one
    ``Mask`` of class ids; mask, boxes and labels stay as they are.

    Args:
        source: a bank or generator folder, opened on the first hit, once per process.
        p: probability of replacing.
        objects: ``"id"``: all pixels of a class id are one object; ``"component"``: each
            8-connected part.
        labelmix: with a generator that paints masks: probability, in [0, 1), with which a class of
            the mask keeps the image's own pixels, each class for itself; its seams are soft.
        keep: with such a generator: classes, by id or name, that always keep them.

    Raises:
        InputError: a setting out of range, no single ``tv_tensors.Image`` in the input, a part
            that cannot be replaced, or a source that is missing or damaged.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        p: float = 0.5,
        *,
        objects: str = "id",
        labelmix: float = 0.0,
        keep: int | str | Sequence[int | str] = (),
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1 or objects not in ("id", "component"):
            raise InputError(
                f"SynthReplace(p={p}, objects={objects!r}): p is 0..1, objects id or component"
            )
        self.source = os.path.abspath(source)
        self.p = p
        if not 0 <= labelmix < 1:
            raise InputError(f"SynthReplace(labelmix={labelmix}): take a share from 0 to below 1")
        self.objects = objects
        self.labelmix = labelmix
        self.keep = class_list(keep)

    def forward(self, *inputs: Any) -> Any:
        """Return the input's structure with every label of the image replaced, or unchanged."""
        structure = inputs if len(inputs) > 1 else inputs[0]
        images = list(_leaves(structure, tv_tensors.Image))
        if len(images) != 1:
            raise InputError(
                f"SynthReplace found {len(images)} tv_tensors.Image in its input: pass exactly "
                "one (v2.ToImage() turns pictures and arrays into it)"
            )
        if torch.rand(()) >= self.p:
            return structure
        source = open_source_once(self.source)
        if source.paints_masks:
            return _repainted(structure, images[0], source, self.labelmix, self.keep)
        if self.labelmix or self.keep:
            source.require_painter("labelmix or keep")
        _refuse_plain(structure)
        if _leaves(structure, (tv_tensors.Mask, tv_tensors.BoundingBoxes)):
            source.require_masks()
            for mask in _class_masks(structure):
                source.compare_ids(mask.numpy(force=True))
        choice = source.draw(lambda n: int(torch.randint(n, ())))
        height, width = images[0].shape[-2:]
        sample = resized(source.fetch(choice), height, width)
        objects = find_objects(sample.mask, source.classes, per=self.objects)
        if any(_is_per_object(key, leaf) for key, leaf in _entries(structure)):
            _refuse_stale("", structure)
        return _replace(structure, "", _Pair(sample, objects, source))


def _repainted(
    structure: Any,
    image: tv_tensors.Image,
    source: Source,
    labelmix: float,
    keep: Sequence[int | str],
) -> Any:
    """Give the image another look for its own mask."""
    masks = _class_masks(structure)
    if len(masks) != 1:
        raise InputError(
            f"{source.path} paints masks: pass one Mask of class ids, (H, W) or (1, H, W), beside "
            f"the image, not {len(masks)}"
        )
    ids = masks[0].numpy(force=True).reshape(masks[0].shape[-2:])
    choice = source.draw(lambda n: int(torch.randint(n, ())))
    if not source.sees_label(ids):
        return structure  # a crop that shows nothing labelled
    picture = source.repaint(ids, tuple(image.shape[-2:]), choice)
    painted = _image(image, Sample(picture, picture[..., 0]))
    if labelmix or keep:
        old, new = (shown.permute(1, 2, 0).numpy(force=True) for shown in (image, painted))
        mixed = source.mix(old, new, ids, choice, labelmix, keep).transpose(2, 0, 1)
        painted = tv_tensors.Image(np.ascontiguousarray(mixed))
    return _exchanged(structure, image, painted)


def _class_masks(value: Any, key: str = "") -> list[tv_tensors.Mask]:
    """Masks of class ids; those of single objects lie under ``masks``."""
    if isinstance(value, tv_tensors.Mask):
        one = value.ndim == 2 or (value.ndim == 3 and value.shape[0] == 1)
        return [value] if one and key != "masks" else []
    if isinstance(value, dict):
        return [mask for k, v in value.items() for mask in _class_masks(v, k)]
    if isinstance(value, (tuple, list)):
        return [mask for v in value for mask in _class_masks(v)]
    return []


def _exchanged(value: Any, old: Any, new: Any) -> Any:
    """The same structure with one leaf exchanged."""
    if value is old:
        return new
    if isinstance(value, dict):
        return {k: _exchanged(v, old, new) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [_exchanged(v, old, new) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _leaves(value: Any, kind: type | tuple[type, ...]) -> list[Any]:
    return [leaf for _, leaf in _entries(value) if isinstance(leaf, kind)]


class _Pair(NamedTuple):
    """What is put in: a sample, its objects, where it comes from."""

    sample: Sample
    objects: list[SegmentedObject]
    source: Source


def _replace(value: Any, key: str, pair: _Pair) -> Any:
    if isinstance(value, dict):
        labelled, labels = _has_objects(value), value.get("labels")
        if labelled and isinstance(labels, torch.Tensor):
            pair.source.compare_labels("id", labels.flatten().tolist())
        return {
            k: torch.tensor([o.id for o in pair.objects], dtype=v.dtype)
            if labelled and k == "labels" and isinstance(v, torch.Tensor)
            else _replace(v, k, pair)
            for k, v in value.items()
        }
    if isinstance(value, (tuple, list)):
        parts = [_replace(v, "", pair) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, tv_tensors.Image):
        return _image(value, pair.sample)
    if isinstance(value, tv_tensors.Mask):
        return _mask(value, key, pair)
    if isinstance(value, tv_tensors.BoundingBoxes) and value.shape[-1] == 4:
        boxes = torch.tensor([o.box for o in pair.objects], dtype=torch.float32).reshape(-1, 4)
        corners = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=pair.sample.size)
        converted = v2.functional.convert_bounding_box_format(corners, new_format=value.format)
        exact = converted if value.is_floating_point() else converted.round()
        like = {"format": value.format, "canvas_size": pair.sample.size}
        if hasattr(value, "clamping_mode"):  # torchvision 0.24 and newer
            like["clamping_mode"] = value.clamping_mode
        return tv_tensors.BoundingBoxes(exact.to(value.dtype), **like)
    if isinstance(value, tv_tensors.TVTensor):
        form = f" of shape {tuple(value.shape)}" if value.ndim else ""
        raise InputError(
            f"SynthReplace cannot replace {type(value).__name__}{form}: a bank holds images and "
            "masks; pass Image, Mask and upright BoundingBoxes only"
        )
    return value


def _is_per_object(key: str, value: Any) -> bool:
    return isinstance(value, tv_tensors.BoundingBoxes) or (
        key == "masks" and isinstance(value, tv_tensors.Mask)
    )


def _has_objects(target: dict[str, Any]) -> bool:
    return any(_is_per_object(key, value) for key, value in target.items())


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a structure, each with the key that it lies under."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _entries(entry, name)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from _entries(entry, key)
    else:
        yield key, value


def _refuse_plain(value: Any, key: str = "") -> None:
    """Refuse masks, boxes, points and pictures that nobody can tell for what they are."""
    of_picture = key in _KINDS or key in _POINTS
    if isinstance(value, dict):
        for name, entry in value.items():
            _refuse_plain(entry, key if of_picture else name)
        return
    listed = isinstance(value, (tuple, list))
    rows = listed and key not in _OF_THE_PICTURE and _are_rows(value)
    if listed and not rows:
        for entry in value:
            _refuse_plain(entry, key)
        return
    if value is None or isinstance(value, tv_tensors.TVTensor):
        return
    if of_picture or rows or getattr(value, "ndim", 0) > 1 or isinstance(value, PIL.Image.Image):
        entry = f"entry {key!r} is" if key else "the input holds"
        kind = _KINDS.get(key, "tv_tensors.BoundingBoxes" if rows else _KINDS["mask"])
        wrap = f"wrap it as {kind} before SynthReplace, or drop it"
        if key in _OF_THE_PICTURE or key in _POINTS:
            wrap = "drop it, or add it after SynthReplace"
        raise InputError(
            f"{entry} a plain {type(value).__name__} that would still describe the replaced image: "
            f"{wrap}; targets of torchvision's datasets: datasets.wrap_dataset_for_transforms_v2"
        )


def _refuse_stale(key: str, value: Any, *, labelled: bool = False) -> None:
    """Refuse what would still describe the objects that are replaced."""
    if isinstance(value, dict):
        for name, entry in value.items():
            _refuse_stale(name, entry, labelled=_has_objects(value))
        return
    listed = isinstance(value, (tuple, list))
    if listed and key != "labels" and not _is_plain_list(value):
        if key == "masks":
            raise InputError("masks of objects are a list: pass them to SynthReplace as one Mask")
        for entry in value:
            _refuse_stale("", entry)
        return
    allowed = key in _OF_THE_PICTURE
    if key == "labels":
        allowed = labelled and isinstance(value, torch.Tensor)
    many = listed or getattr(value, "ndim", 0) > 0
    if many and not isinstance(value, tv_tensors.TVTensor) and not allowed:
        name = f"entry {key!r}" if key else f"a {type(value).__name__} without a name"
        raise InputError(
            f"{name} would still describe the objects that are replaced: drop it before "
            "SynthReplace, or pass a tensor 'labels' in one dict with the boxes or masks"
        )


def _are_rows(value: Sequence[Any]) -> bool:
    """Whether all entries are lists of numbers, as boxes and polygons are."""
    return len(value) > 0 and all(
        isinstance(row, (tuple, list)) and row and all(isinstance(v, (int, float)) for v in row)
        for row in value
    )


def _is_plain_list(value: Sequence[Any]) -> bool:
    """Whether a list or tuple holds numbers and words alone."""
    return len(value) > 0 and all(isinstance(v, (bool, int, float, str)) for v in value)


def _image(value: tv_tensors.Image, sample: Sample) -> tv_tensors.Image:
    if value.dtype != torch.uint8:
        least, most = (float(end) for end in value.double().aminmax())
        if is_normalised(least, most) or not value.is_floating_point():
            raise InputError(
                f"SynthReplace got an image of {value.dtype} from {least:g} to {most:g}: pass "
                "uint8, or float in [0, 1], before what normalises it"
            )
    image = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1)))
    if value.ndim == 3 and value.shape[0] == 1:
        image = v2.functional.rgb_to_grayscale(image)
    elif value.ndim != 3 or value.shape[0] != 3:
        raise InputError(f"SynthReplace got an image of shape {tuple(value.shape)}: pass (3, H, W)")
    return tv_tensors.Image(v2.functional.to_dtype(image, value.dtype, scale=True))


def _mask(value: tv_tensors.Mask, key: str, pair: _Pair) -> tv_tensors.Mask:
    sample, objects, source = pair
    if key == "masks":
        empty = np.zeros((0, *sample.size), np.uint8)
        stack = np.stack([o.mask for o in objects]) if objects else empty
    elif value.ndim == 2 or value.shape[0] == 1:
        ids = sample.mask if value.ndim == 2 else sample.mask[None]
        if value.dtype == torch.bool:
            stack = objects_of(ids, source.classes)
        else:
            if not value.is_floating_point():
                check_ids_fit(ids, torch.iinfo(value.dtype).max, value.dtype)
            stack = np.array(ids)
    else:
        raise InputError(
            f"SynthReplace got a mask of shape {tuple(value.shape)}: pass ids (H, W), or masks of "
            "objects under the key 'masks'"
        )
    return tv_tensors.Mask(torch.from_numpy(stack).to(value.dtype))
