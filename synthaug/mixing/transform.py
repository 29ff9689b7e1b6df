"""SynthAugment: an albumentations transform that replaces a labelled image by a synthetic pair."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Lt
from numpy.typing import NDArray
from pydantic import BeforeValidator

from synthaug import seeding
from synthaug.errors import InputError
from synthaug.mixing._albumentations import load_albumentations
from synthaug.mixing.real_items import in_channels
from synthaug.mixing.source import (
    SegmentedObject,
    Source,
    check_ids_fit,
    find_objects,
    is_normalised,
    objects_of,
    open_source_once,
)
from synthaug.mixing.workers import worker_seed
from synthaug.sample import Sample, class_list, resized

load_albumentations()
from albumentations import DualTransform  # noqa: E402
from albumentations.core.transforms_interface import BaseTransformInitSchema  # noqa: E402
from albumentations.core.type_definitions import Targets  # noqa: E402

REFUSED = ("images", "volume", "volumes", "mask3d", "masks3d")
LabelKind = Literal["name", "id", "index"]
_started: Counter[tuple[int | str, ...]] = Counter()
"""How many transforms of a worker began a stream, by its seed, their source's name and seed."""


def _as_path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class SynthAugment(DualTransform):  # type: ignore[misc]
    """Replace image, mask, masks and boxes by a synthetic pair from a bank or a generator.

    With a generator that paints masks (``oasis``) the image alone is replaced, by a new picture for
    the mask that is passed; all labels stay as they are, so that it may stand anywhere.
    Pixels of the ignore id, and of ids that the generator was told to ignore, stay so and get
    whatever surrounds them.

    Else put it first in the pipeline: whatever ran before it is thrown away on a hit, whatever
    comes after it treats real and synthetic pairs alike. Pass every label of the image to the call;
    a caption or class kept elsewhere still describes the replaced image.

    Args:
        source: a bank folder (its kept samples are drawn) or a generator folder (a pair is
            generated per hit, on the CPU that prepares the batch; a bank is much faster). It is
            opened on the first hit, once per process, and never stored or pickled; its absolute
            path is, so that a saved pipeline opens it from any working directory.
        p: probability of replacing.
        resize: bring the pair to the size of the incoming image, stretching if the aspect
            differs, so that batches collate; otherwise it keeps its own size.
        objects: what a box and an entry of ``masks`` stand for: ``"id"``: all pixels of one
            class id; ``"component"``: each 8-connected part of them. The background (the smallest
            id) and the ignore id 255 are no objects.
        labels: what the boxes' label field gets: the class ``"name"``, the class ``"id"`` or the
            box's ``"index"``. With several label fields, a dict of one of these per field.
        labelmix: with a generator that paints masks: probability, in [0, 1), with which a class of
            the mask keeps the image's own pixels, each class for itself; its seams are soft.
        keep: with such a generator: classes, by id or name, that always keep them.

    Targets:
        image, mask, masks, bboxes

    Image types:
        uint8, float32

    Note:
        - ``image``: RGB, (H, W, 3), or grey (H, W) and (H, W, 1); uint8 in [0, 255] or float in
          [0, 1], returned likewise.
        - ``mask``: (H, W) or (H, W, 1) class ids of the bank, in the dtype that came in; a bool
          mask is True on the objects.
        - ``masks``: one 0/1 mask per object, in the order of the boxes, whatever number came in;
          0/255 where such came in; an empty list when the pair shows no object.
        - ``bboxes``: need `albumentations.Compose` with ``bbox_params`` for formats and labels.
          New class names extend the label field. Without label fields a fifth column, when there
          is one, gets the class id.
        - In `DataLoader` workers it draws from the worker's seed and so differs per worker, epoch
          and transform by itself; pass ``worker_init_fn=seed_worker`` to mend its neighbours too.
        - `albumentations.from_dict` and ``load`` know the class once this module is imported.

    Raises:
        InputError: on use, when the source is missing or damaged, when volumes, ``images``,
            additional targets or, where pairs are replaced, keypoints are passed (no synthetic
            counterpart exists), or when an array has an unusual shape or dtype.

    Warns:
        UserWarning: once, when ids of the masks or labels of the boxes are none of the source's.
    """

    _targets = (Targets.IMAGE, Targets.MASK, Targets.BBOXES)

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]
        """Validated settings."""

        source: Annotated[str, BeforeValidator(_as_path)]
        resize: bool
        objects: Literal["id", "component"]
        labels: LabelKind | dict[str, LabelKind]
        labelmix: Annotated[float, Ge(0), Lt(1)]
        keep: Annotated[Sequence[int | str], BeforeValidator(class_list)]

    def __init__(
        self,
        source: str | os.PathLike[str],
        p: float = 0.5,
        *,
        resize: bool = True,
        objects: Literal["id", "component"] = "id",
        labels: LabelKind | dict[str, LabelKind] = "name",
        labelmix: float = 0.0,
        keep: int | str | Sequence[int | str] = (),
    ) -> None:
        super().__init__(p=p)
        self.source = os.path.abspath(source)
        self.resize = resize
        self.objects = objects
        self.labels = labels
        self.labelmix = labelmix
        self.keep = class_list(keep)

    @property
    def targets(self) -> dict[str, Any]:
        """The keys that are replaced."""
        return {
            "image": self.apply,
            "mask": self.apply_to_mask,
            "masks": self.apply_to_masks,
            "bboxes": self.apply_to_bboxes,
        }

    def add_targets(self, additional_targets: dict[str, str]) -> None:
        """Refuse additional targets: a source holds one image and one mask per sample."""
        if additional_targets:
            raise InputError(
                f"SynthAugment cannot replace the additional targets {sorted(additional_targets)}: "
                "a bank holds one image and one mask; run it in a pipeline without them"
            )

    def set_random_state(
        self, random_generator: np.random.Generator, py_random: random.Random
    ) -> None:
        """Take over the streams of a pipeline, and remember for which worker they were made."""
        super().set_random_state(random_generator, py_random)
        self._seeded_for = worker_seed()

    def set_random_seed(self, seed: int | None) -> None:
        """Start streams of its own from a seed."""
        super().set_random_seed(seed)
        self._seeded_for = worker_seed()

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        """Replace the pair with probability ``p``."""
        refused = [key for key in REFUSED if data.get(key) is not None]
        points = data.get("keypoints")
        if points is not None and len(points) and not open_source_once(self.source).paints_masks:
            refused.append("keypoints")
        if refused:
            raise InputError(
                f"SynthAugment cannot replace {', '.join(refused)}: a bank holds images and masks; "
                "pass image, mask, masks and bboxes only"
            )
        worker = worker_seed()
        if worker is not None and worker != self._seeded_for and not self.replay_mode:
            name = os.path.basename(self.source)  # the same wherever the folder lies
            shared = (worker, "synth-augment", name, self.seed or 0)
            own = (*shared, _started[shared])  # numbered in the order of their first calls
            _started[shared] += 1
            self.set_random_state(seeding.numpy_stream(*own), seeding.python_stream(*own))
        result: dict[str, Any] = super().__call__(*args, force_apply=force_apply, **data)
        return result

    def update_transform_params(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Add nothing: the parameters name the synthetic pair and no more."""
        return params

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Choose a pair: ``{"sample_id": str}`` or ``{"latent_seed": int}``."""
        return open_source_once(self.source).draw(self.py_random.randrange)

    def apply_with_params(self, params: dict[str, Any], *args: Any, **data: Any) -> dict[str, Any]:
        """Replace every known key by its part of the chosen pair; other keys pass through."""
        if data.get("image") is None:
            raise InputError("SynthAugment replaces image and labels together: pass image=...")
        _require_arrays(data)
        source = open_source_once(self.source)
        if source.paints_masks:
            if data.get("mask") is not None and not source.sees_label(data["mask"]):
                return data  # a crop that shows nothing labelled
            picture = source.repaint(data.get("mask"), data["image"].shape[:2], params)
            image = self.apply(data["image"], sample=Sample(picture, picture[..., 0]))
            if self.labelmix or self.keep:
                old, mask = data["image"], data["mask"]
                image = source.mix(old, image, mask, params, self.labelmix, self.keep)
            return data | {"image": image}
        if self.labelmix or self.keep:
            source.require_painter("labelmix or keep")
        if any(data.get(key) is not None for key in ("mask", "masks", "bboxes")):
            source.require_masks()
        sample = source.fetch(params)
        if self.resize:
            sample = resized(sample, *data["image"].shape[:2])
        found = []
        if data.get("masks") is not None or data.get("bboxes") is not None:
            found = find_objects(sample.mask, source.classes, per=self.objects)
        pair = {"sample": sample, "objects": found, "source": source}
        return {
            key: value
            if value is None or key not in self._key2func
            else self._key2func[key](value, **pair)
            for key, value in data.items()
        }

    def apply(self, img: NDArray[Any], *, sample: Sample, **_: Any) -> NDArray[Any]:
        """Return the synthetic image in the shape and dtype of ``img``."""
        channels = 1 if img.ndim == 2 else img.shape[2]
        if channels not in (1, 3):
            raise InputError(
                f"SynthAugment got an image with {channels} channels: pass RGB (3) or grey (1)"
            )
        image: NDArray[Any] = in_channels(sample.image, img.shape)
        if img.dtype == np.uint8:
            return np.array(image, order="C")
        least, most = float(img.min(initial=0)), float(img.max(initial=0))
        if np.issubdtype(img.dtype, np.floating) and not is_normalised(least, most):
            return (image / 255).astype(img.dtype)
        raise InputError(
            f"SynthAugment got an image of dtype {img.dtype} from {least:g} to {most:g}: pass "
            "uint8, or float32 in [0, 1], before what normalises it"
        )

    def apply_to_mask(
        self, mask: NDArray[Any], *, sample: Sample, source: Source, **_: Any
    ) -> NDArray[Any]:
        """Return the synthetic ids in the shape and dtype of ``mask``."""
        if mask.ndim not in (2, 3) or (mask.ndim == 3 and mask.shape[2] != 1):
            raise InputError(
                f"SynthAugment got a mask of shape {mask.shape}: pass class ids (H, W), or one "
                "mask per object as masks=[...]"
            )
        source.compare_ids(mask)
        ids = sample.mask if mask.ndim == 2 else sample.mask[..., None]
        if mask.dtype == bool:
            return objects_of(ids, source.classes)
        if np.issubdtype(mask.dtype, np.integer):
            check_ids_fit(ids, np.iinfo(mask.dtype).max, mask.dtype)
        return np.array(ids, mask.dtype, order="C")

    def apply_to_masks(
        self, masks: Any, *, objects: list[SegmentedObject], **_: Any
    ) -> NDArray[Any] | list[NDArray[Any]]:
        """Return one 0/1 mask per object, a list when a filled list or no object is there.

        They are 0/255 where those that came in were.
        """
        first = masks[0] if len(masks) else np.empty((0, 0), getattr(masks, "dtype", np.uint8))
        if first.ndim not in (2, 3) or (first.ndim == 3 and first.shape[2] != 1):
            raise InputError(f"SynthAugment got masks of shape {first.shape}: pass (H, W) each")
        white = first.dtype.kind in "iu" and any(np.max(mask, initial=0) == 255 for mask in masks)
        regions = [
            np.array(o.mask, first.dtype, order="C") * first.dtype.type(255 if white else 1)
            for o in objects
        ]
        if first.ndim == 3:
            regions = [region[..., None] for region in regions]
        keeps_list = isinstance(masks, (list, tuple)) and len(masks) > 0
        return regions if keeps_list or not regions else np.stack(regions)

    def apply_to_bboxes(
        self,
        bboxes: NDArray[Any],
        *,
        sample: Sample,
        objects: list[SegmentedObject],
        source: Source,
        **_: Any,
    ) -> NDArray[Any]:
        """Return one row per object: left, top, right, bottom in [0, 1], then the label columns.

        New labels extend the encoder of their field, as albumentations' own Mosaic does.
        """
        height, width = sample.size
        boxes = np.array([o.box for o in objects], np.float32).reshape(-1, 4)
        rows = boxes / np.array([width, height, width, height], np.float32)
        processor = self.get_processor("bboxes")
        fields = list(processor.params.label_fields or []) if processor is not None else []
        if not isinstance(bboxes, np.ndarray):
            raise InputError("boxes without a format: name it in A.Compose(bbox_params=...)")
        if processor is None or not fields:
            extra = bboxes.shape[1] - 4 if bboxes.ndim == 2 else 0
            if extra > 1:
                raise InputError(
                    f"SynthAugment got boxes with {extra} columns of labels: name them in "
                    "bbox_params(label_fields=[...])"
                )
            if extra:
                source.compare_labels("id", bboxes[:, 4].tolist())
            ids = np.array([o.id for o in objects], np.float32).reshape(-1, 1)
            return np.hstack([rows, ids[:, :extra]])
        if not objects:
            return np.zeros((0, 4 + len(fields)), np.float32)
        given = bboxes if len(bboxes) else np.zeros((0, 4 + len(fields)), np.float32)
        columns = [
            self._labels(field, given[:, [number]], objects, processor, source)
            for number, field in enumerate(fields, start=4)
        ]
        return np.hstack([rows, *columns]).astype(np.float32)

    def _labels(
        self,
        field: str,
        given: NDArray[Any],
        objects: list[SegmentedObject],
        processor: Any,
        source: Source,
    ) -> NDArray[Any]:
        """Return a label column for the objects, in the place of the ``given`` one."""
        kind = self.labels
        if isinstance(kind, dict):
            if field not in kind:
                raise InputError(f"SynthAugment(labels=...) has no entry for label field {field!r}")
            kind = kind[field]
        elif len(processor.params.label_fields) > 1:
            raise InputError(
                f"there are several label fields {list(processor.params.label_fields)}: tell "
                "SynthAugment what each one gets, labels={'field': 'name' | 'id' | 'index'}"
            )
        values: list[Any] = list(range(len(objects)))
        if kind != "index":
            values = [getattr(o, kind) for o in objects]
        manager = processor.label_manager
        known = manager.metadata["bboxes"].get(field)
        if known is None:  # no box so far: what is put in must not decide what the field holds
            manager.process_field("bboxes", field, [])
            known = manager.metadata["bboxes"][field]
        if kind == "name" and (known.is_numerical or known.encoder.is_numerical):
            raise InputError(
                f"label field {field!r} holds numbers, SynthAugment would add class names: "
                "set labels='id'"
            )
        if kind != "index" and len(given):
            labels = manager.restore_field("bboxes", field, given)
            source.compare_labels(kind, np.ravel(labels).tolist())
        if kind != "name" and not known.is_numerical:
            words = any(isinstance(label, str) for label in known.encoder.classes_)
            values = [str(value) for value in values] if words else values
        column: NDArray[Any] = manager.process_field("bboxes", field, values)
        stored = known.dtype
        if stored is not None and np.issubdtype(stored, np.str_):  # else longer names are cut
            known.dtype = np.result_type(stored, np.array([str(value) for value in values]))
        return column


def _require_arrays(data: dict[str, Any]) -> None:
    """Refuse pictures and tensors, which `albumentations.Compose` alone would refuse."""
    masks = data.get("masks")
    named = [(key, data.get(key)) for key in ("image", "mask")]
    for key, value in named + [("masks", mask) for mask in (() if masks is None else masks)]:
        if value is not None and not isinstance(value, np.ndarray):
            raise InputError(
                f"SynthAugment got {key} of type {type(value).__name__}: pass a NumPy array, "
                "np.asarray(picture), channels last"
            )
