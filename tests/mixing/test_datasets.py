from __future__ import annotations

import pickle
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import albumentations as A
import numpy as np
import pytest
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from synthaug.bank import Bank
from synthaug.config.arms import Arm
from synthaug.errors import InputError
from synthaug.mixing import SynthMix, seed_worker, standard_augmentation, workers
from synthaug.mixing.auto import MixChoice
from synthaug.sample import Sample

KEPT = ["00000", "00001", "00003", "00004", "00005", "00006", "00007"]
SIZE = (36, 48)


def real_items(count: int, *, as_dict: bool = False) -> list[Any]:
    """Dark images whose value is their number."""
    items = []
    for number in range(count):
        image, mask = np.full((*SIZE, 3), number, np.uint8), np.zeros(SIZE, np.uint8)
        items.append({"image": image, "mask": mask} if as_dict else (image, mask))
    return items


def origins(mix: SynthMix, epoch: int) -> list[str]:
    return [mix.origin((epoch, index)) for index in range(len(mix))]


def synthetic(names: list[str]) -> list[str]:
    return [n.removeprefix("synthetic/") for n in names if n.startswith("synthetic/")]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("length", [None, 60])
def test_the_ratio_is_exact(bank: Bank, ratio: float, length: int | None) -> None:
    mix = SynthMix(real_items(12), bank.path, ratio, length=length)
    if length is None and ratio < 1:
        assert len(mix) - len(synthetic(origins(mix, 0))) == 12
    for epoch in range(3):
        names = origins(mix, epoch)
        assert len(synthetic(names)) == pytest.approx(len(mix) * ratio, abs=0.999)
        if length is not None:
            assert len(synthetic(names)) == round(60 * ratio)
        for start in range(0, len(mix) - 9):
            window = len(synthetic(names[start : start + 10]))
            assert abs(window - 10 * ratio) < 1
            if float(10 * ratio).is_integer():
                assert window == 10 * ratio


@pytest.mark.parametrize(
    ("count", "ratio", "length"), [(1, 0.25, None), (2, 0.3, None), (7, 2 / 7, None), (1, 0.5, 7)]
)
def test_the_share_is_exact_over_the_epochs_of_few_items(
    bank: Bank, count: int, ratio: float, length: int | None
) -> None:
    mix = SynthMix(real_items(count), bank.path, ratio, length=length)
    names = [name for epoch in range(60) for name in origins(mix, epoch)]
    assert len(synthetic(names)) == pytest.approx(ratio * len(names), abs=0.999)
    assert Counter(synthetic(names)).keys() == set(KEPT)


@pytest.mark.parametrize(("ratio", "first"), [(0.5, 1.0), (0.25, 0.5), (0.1, 0.2), (0.0, 0.0)])
@pytest.mark.parametrize("epochs", [4, 5])
def test_the_synthetic_come_first_and_a_training_ends_on_real_items(
    bank: Bank, ratio: float, first: float, epochs: int
) -> None:
    mix = SynthMix(real_items(12), bank.path, ratio, schedule="synthetic-first", epochs=epochs)
    assert len(mix) == len(SynthMix(real_items(12), bank.path, ratio))
    names = [name for epoch in range(epochs + 1) for name in origins(mix, epoch)]
    turn = epochs * len(mix) // 2
    assert len(synthetic(names[:turn])) == int(turn * first + 1e-9)
    for start in range(turn - 10):
        assert abs(len(synthetic(names[start : start + 10])) - 10 * first) < 1
    assert synthetic(names[turn:]) == []  # and one epoch more than was said
    for kind, size in (("synthetic/", len(KEPT)), ("real/", 12)):
        shown = [name for name in names if name.startswith(kind)]
        for start in range(0, len(shown) - size + 1, size):
            assert len(set(shown[start : start + size])) == size


@pytest.mark.parametrize("persistent", [False, True])
def test_synthetic_first_must_know_the_epoch(bank: Bank, persistent: bool) -> None:
    def mix() -> SynthMix:
        return SynthMix(
            real_items(4), bank.path, 0.5, schedule="synthetic-first", epochs=2, provenance=True
        )

    workers = {"num_workers": 1, "persistent_workers": persistent}
    with pytest.raises(InputError, match="must know the epoch: load with batch_sampler="):
        next(iter(DataLoader(mix(), batch_size=4, shuffle=True)))
    with pytest.raises(InputError, match=r"or call mix\.set_epoch\(epoch\)"):
        next(iter(DataLoader(mix(), batch_size=4, **workers)))
    told, counted = mix(), mix()
    plain = DataLoader(told, batch_size=4, shuffle=True, **workers)
    sampled = DataLoader(counted, batch_sampler=counted.batch_sampler(4), **workers)
    for loader in (plain, sampled):
        shares = []
        for epoch in range(3):
            if loader is plain:
                told.set_epoch(epoch)
            shares.append(len(synthetic([name for batch in loader for name in batch[2]])))
        assert shares == [8, 0, 0]


def test_default_length_uses_each_real_item_once_per_epoch(bank: Bank) -> None:
    mix = SynthMix(real_items(9), bank.path, 0.25)
    assert len(mix) == 12
    for epoch in range(3):
        real = [n for n in origins(mix, epoch) if n.startswith("real/")]
        assert sorted(real) == sorted(f"real/{i}" for i in range(9))
    assert len(SynthMix(real_items(9), bank.path, 1.0)) == 9


def test_nothing_repeats_before_everything_was_used(bank: Bank) -> None:
    mix = SynthMix(real_items(5), bank.path, 0.5, length=6)
    drawn = [name for epoch in range(14) for name in origins(mix, epoch)]
    samples = synthetic(drawn)
    real = [n for n in drawn if n.startswith("real/")]
    for start in range(0, len(samples) - 6, 7):
        assert sorted(samples[start : start + 7]) == KEPT
    for start in range(0, len(real) - 4, 5):
        assert len(set(real[start : start + 5])) == 5
    assert max(Counter(samples).values()) - min(Counter(samples).values()) <= 1


def test_order_is_seeded_and_changes_with_the_epoch(bank: Bank) -> None:
    first, again = (SynthMix(real_items(20), bank.path, 0.5, seed=1) for _ in range(2))
    other = SynthMix(real_items(20), bank.path, 0.5, seed=2)
    assert origins(first, 3) == origins(again, 3)
    assert origins(first, 3) != origins(first, 4)
    assert origins(first, 3) != origins(other, 3)


def test_plain_indices_follow_set_epoch(bank: Bank) -> None:
    mix = SynthMix(real_items(6), bank.path, 0.5)
    start = [mix.origin(i) for i in range(len(mix))]
    mix.set_epoch(2)
    assert [mix.origin(i) for i in range(len(mix))] == origins(mix, 2) != start
    assert mix.origin(-1) == mix.origin(len(mix) - 1)
    assert len(list(mix)) == len(mix)
    with pytest.raises(IndexError):
        mix[len(mix)]


def test_items_are_the_real_ones_and_the_bank_samples(bank: Bank) -> None:
    mix = SynthMix(real_items(6), str(bank.path), 0.5, provenance=True)
    stored = {r["id"]: bank[i] for i, r in enumerate(bank.records)}
    for index in range(len(mix)):
        image, mask, origin = mix[index]
        kind, name = origin.split("/")
        if kind == "real":
            assert (image == int(name)).all()
        else:
            assert np.array_equal(image, stored[name].image)
            assert np.array_equal(mask, stored[name].mask)


class Pair(NamedTuple):
    picture: Any
    labels: Any


@pytest.mark.parametrize(
    "make",
    [
        Pair,
        lambda image, mask: [image, mask],
        lambda image, mask: OrderedDict(mask=mask, image=image),
    ],
)
@pytest.mark.parametrize("transform", [None, standard_augmentation(*SIZE)])
def test_synthetic_items_are_of_the_type_of_the_real_ones(
    bank: Bank, make: Any, transform: Any
) -> None:
    real = [make(*item) for item in real_items(4)]
    items = list(SynthMix(real, bank.path, 0.5, transform=transform))
    assert {type(item) for item in items} == {type(real[0])}
    first = list(items[0])
    assert len(items) == 8
    for item in items:
        image, mask = (item["image"], item["mask"]) if isinstance(item, dict) else item
        assert (image.shape, mask.shape) == ((*SIZE, 3), SIZE)
        if isinstance(item, dict):
            assert list(item) == first == ["mask", "image"]


def test_dict_items_keep_their_keys(bank: Bank) -> None:
    mix = SynthMix(real_items(4, as_dict=True), bank.path, 0.5)
    assert all(set(item) == {"image", "mask"} for item in mix)
    named = SynthMix(real_items(4, as_dict=True), bank.path, 0.5, provenance=True)
    assert named[0]["provenance"] == named.origin(0)


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 1)])
@pytest.mark.parametrize("as_dict", [False, True])
def test_synthetic_items_are_grey_where_real_ones_are(
    bank: Bank, shape: tuple[int, ...], as_dict: bool
) -> None:
    image, mask = np.zeros(shape, np.uint8), np.zeros(SIZE, np.uint8)
    mix = SynthMix([{"image": image, "mask": mask} if as_dict else (image, mask)] * 4, bank, 1.0)
    pictures = [item["image"] if as_dict else item[0] for item in mix]
    assert {(picture.shape, picture.dtype) for picture in pictures} == {(shape, image.dtype)}
    # the pixels of a cat are (200, 30, 30): 0.299 of 200 and 0.701 of 30
    assert {int(picture[5, 7].item()) for picture in pictures} == {81}


def test_adapt_imitates_any_other_item(bank: Bank) -> None:
    class Tensors(list[Any]):
        pass

    real = Tensors([(torch.zeros(3, *SIZE), torch.zeros(SIZE), "caption")] * 4)
    with pytest.raises(InputError, match="adapt"):
        list(SynthMix(real, bank.path, 0.5))
    with pytest.raises(InputError, match=r"yields .*float32 Tensor images"):
        list(SynthMix([real[0][:2]], bank.path, 0.5))
    with pytest.raises(InputError, match="adapt"):
        list(SynthMix([{"image": SIZE, "label": 3}], bank.path, 0.5))

    def adapt(sample: Sample) -> Any:
        image = torch.from_numpy(sample.image.transpose(2, 0, 1) / np.float32(255))
        return image, torch.from_numpy(sample.mask).float(), sample.id

    shapes = {tuple(image.shape) for image, _, _ in SynthMix(real, bank.path, 0.5, adapt=adapt)}
    assert shapes == {(3, *SIZE)}


@pytest.mark.parametrize("as_dict", [False, True])
def test_the_transform_treats_both_kinds_alike(bank: Bank, as_dict: bool) -> None:
    pipeline = standard_augmentation(32, 40)
    mix = SynthMix(real_items(4, as_dict=as_dict), bank.path, 0.5, transform=pipeline)
    for item in mix:
        image, mask = item.values() if as_dict else item
        assert image.shape == (32, 40, 3)
        assert mask.shape == (32, 40)


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_transform_does_not_narrow_masks_now_and_then(bank: Bank, as_dict: bool) -> None:
    def widened(image: Any, mask: Any) -> dict[str, Any]:
        return {"image": image, "mask": mask.astype(np.int64)}

    narrow = real_items(4)
    wide = [(image, mask.astype(np.int64)) for image, mask in narrow]
    for real, transform in ((wide, standard_augmentation(*SIZE)), (narrow, widened)):
        items = [{"image": i, "mask": m} for i, m in real] if as_dict else real
        mix = SynthMix(items, bank.path, 0.5, length=20, transform=transform)
        masks = [item["mask"] if as_dict else item[1] for item in mix]
        assert {mask.dtype for mask in masks} == {np.dtype(np.int64)}


def test_bool_masks_that_a_transform_cannot_take_get_one_line(bank: Bank) -> None:
    real = [(image, mask > 0) for image, mask in real_items(2)]
    mix = SynthMix(real, bank.path, 0.0, transform=standard_augmentation(*SIZE))
    with pytest.raises(InputError, match=r"cannot take bool masks: .* mask\.astype\(np\.uint8\)"):
        list(mix)
    flipped = SynthMix(real, bank.path, 0.0, transform=A.HorizontalFlip(p=1.0))
    assert {mask.dtype for _, mask in flipped} == {np.dtype(bool)}


@pytest.mark.parametrize(
    ("items", "transform", "message"),
    [
        ([{"img": 1, "msk": 2}], A.HorizontalFlip(), "an item is a dict of img, msk: let"),
        ([torch.zeros(3)], A.HorizontalFlip(), r"an item is \(3,\) torch.float32 Tensor: let"),
        (
            [(torch.zeros(3, *SIZE), torch.zeros(SIZE))],
            A.HorizontalFlip(),
            "albumentations takes NumPy arrays, and the dataset yields .* Tensor images",
        ),
        (real_items(1), lambda image, mask: (image, mask), "transform returned tuple: it must"),
        (real_items(1), lambda image, mask: None, "transform returned NoneType: it must return"),
        (real_items(1), lambda **given: {"image": 1}, "transform returned a dict of image: it"),
    ],
)
def test_a_transform_that_does_not_fit_gets_one_line(
    bank: Bank, items: list[Any], transform: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        SynthMix(items, bank.path, 0.0, transform=transform)[0]


@pytest.mark.parametrize("persistent", [False, True])
def test_batches_hold_the_exact_share_and_epochs_go_on_in_workers(
    bank: Bank, persistent: bool
) -> None:
    mix = SynthMix(
        real_items(9),
        bank.path,
        0.5,
        length=12,
        provenance=True,
        transform=standard_augmentation(*SIZE),
    )
    loader = DataLoader(
        mix,
        batch_sampler=mix.batch_sampler(4),
        num_workers=2,
        worker_init_fn=seed_worker,
        persistent_workers=persistent,
        multiprocessing_context="fork",
    )
    assert len(loader) == 3
    drawn: list[list[str]] = []
    for epoch in range(3):
        names = []
        for images, masks, batch in loader:
            assert images.shape == (4, *SIZE, 3)
            assert masks.shape == (4, *SIZE)
            assert len(synthetic(batch)) == 2
            names += batch
        assert names == origins(mix, epoch)
        drawn.append(names)
    assert len(set(map(tuple, drawn))) == 3
    assert len(set(synthetic(drawn[0] + drawn[1])[:7])) == 7


def test_the_last_batch_can_be_dropped_and_a_training_resumed(bank: Bank) -> None:
    mix = SynthMix(real_items(5), bank.path, 0.5)
    assert [len(b) for b in mix.batch_sampler(4)] == [4, 4, 2]
    sampler = mix.batch_sampler(4, drop_last=True)
    assert [len(b) for b in sampler] == [4, 4]
    assert len(sampler) == 2
    sampler.set_epoch(7)
    assert next(iter(sampler))[0] == (7, 0)
    assert next(iter(sampler))[0] == (8, 0)
    mix.set_epoch(3)
    assert next(iter(sampler))[0] == (3, 0)
    assert next(iter(sampler))[0] == (4, 0)
    assert next(iter(mix.batch_sampler(4)))[0] == (3, 0)


@pytest.mark.parametrize(("drop_last", "counts"), [(False, [4, 4]), (True, [3, 3])])
def test_processes_that_train_together_share_an_epoch(
    bank: Bank, drop_last: bool, counts: list[int]
) -> None:
    mix = SynthMix(real_items(7), bank.path, 0.5, length=28)
    samplers = [
        mix.batch_sampler(4, drop_last=drop_last, num_replicas=2, rank=rank) for rank in (0, 1)
    ]
    ranks = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(rank) for rank in ranks] == counts
    together = [batch for turn in zip(*ranks, strict=True) for batch in turn]
    alone = list(mix.batch_sampler(4))
    assert together == (alone[:6] if drop_last else [*alone, alone[0]])
    with pytest.raises(InputError, match="rank is 2: give 0 to 1"):
        mix.batch_sampler(4, num_replicas=2, rank=2)


def test_whole_numbers_may_be_floats(bank: Bank) -> None:
    mix = SynthMix(real_items(2), bank, 0.5, length=8.0)  # type: ignore[arg-type]
    assert len(mix) == 8
    assert [len(batch) for batch in mix.batch_sampler(4.0)] == [4, 4]  # type: ignore[arg-type]


def test_an_epoch_without_a_batch_is_refused(bank: Bank) -> None:
    mix = SynthMix(real_items(1), bank.path, 0.5)
    with pytest.raises(InputError, match=r"holds 2 items an epoch, fewer than a batch of 8: set"):
        mix.batch_sampler(8, drop_last=True)
    with pytest.raises(InputError, match="fewer than a batch of 1 for each of 4 processes"):
        mix.batch_sampler(1, drop_last=True, num_replicas=4, rank=0)
    assert [len(batch) for batch in mix.batch_sampler(8)] == [2]


def test_lightning_must_not_share_the_batches_again(bank: Bank) -> None:
    mix = SynthMix(real_items(4), bank.path, 0.5)
    shared = DistributedSampler(mix, num_replicas=2, rank=0)
    with pytest.raises(InputError, match="pass use_distributed_sampler=False"):  # as Fabric does
        type(mix.batch_sampler(4))(shared, batch_size=4, drop_last=False)  # type: ignore[arg-type]


def test_lightning_tells_the_epoch(bank: Bank) -> None:
    mix = SynthMix(real_items(2), bank.path, 0.5, provenance=True)
    sampler = mix.batch_sampler(4)
    loader = Fabric(accelerator="cpu", devices=1).setup_dataloaders(
        DataLoader(mix, batch_sampler=sampler)
    )
    for start in (0, 7):  # resumed at 7, while Fabric counts on from 2
        sampler.set_epoch(start)
        for epoch in (start, start + 1):
            assert [list(batch[2]) for batch in loader] == [origins(mix, epoch)]
    sampler.sampler.set_epoch(20)  # as Lightning does when it resumes
    assert next(iter(sampler))[0] == (20, 0)


def test_the_process_group_is_asked_for_the_rank(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 2)):
        monkeypatch.setattr(dist, name, lambda value=value: value)
    sampler = SynthMix(real_items(7), bank.path, 0.5).batch_sampler(4)
    assert (sampler.rank, sampler.num_replicas) == (1, 2)
    monkeypatch.delenv("RANK", raising=False)
    assert workers._rank() == 1


def test_processes_that_train_together_mix_in_the_share_that_the_first_chose(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(found: list[Any], src: int) -> None:
        told.append(found[0])
        found[0] = 0.25 if rank else found[0]

    told: list[Any] = []
    rank = 0
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr(dist, "broadcast_object_list", sent)
    arm = Arm("standard+synthetic 0.75", {"real": 0.25, "synthetic": 0.75}, augment=True)
    chosen = MixChoice(arm, {}, "so it came out")
    monkeypatch.setattr("synthaug.mixing.auto.mix_of_bank", lambda _: chosen)
    ratios = []
    for rank in (0, 1):  # noqa: B007 - the stand-ins above read it
        mix = SynthMix(real_items(6), bank.path)
        mix.batch_sampler(4)
        ratios.append(mix.ratio)
    assert told == [0.75, None]
    assert ratios == [0.75, 0.25]

    def failing(_: object) -> MixChoice:
        raise InputError("the bank is damaged")

    monkeypatch.setattr("synthaug.mixing.auto.mix_of_bank", failing)
    rank = 0
    with pytest.raises(InputError, match="damaged"):
        SynthMix(real_items(6), bank.path).batch_sampler(4)
    assert str(told[-1]) == "the bank is damaged"  # the others are told, too


def test_workers_that_persist_follow_the_epoch(bank: Bank) -> None:
    mix = SynthMix(real_items(2), bank, 0.5, length=2, provenance=True)
    loader = DataLoader(mix, batch_size=None, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in range(3):
        mix.set_epoch(epoch)
        seen.append([item[2] for item in loader])
    assert seen == [[mix.origin((epoch, place)) for place in range(2)] for epoch in range(3)]
    assert seen[0] != seen[1]


def test_what_cannot_be_mixed_is_one_line(bank: Bank) -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    class Counted(Endless):
        def __len__(self) -> int:
            return 4

    for stream in (Endless(), Counted()):
        with pytest.raises(InputError, match=f"{type(stream).__name__} cannot be mixed with"):
            SynthMix(stream, bank)
    with pytest.raises(InputError, match="ratio is None"):
        SynthMix(real_items(2), bank, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"length is 5\.5"):
        SynthMix(real_items(2), bank, 0.5, length=5.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"batch_size is 2\.5"):
        SynthMix(real_items(2), bank, 0.5).batch_sampler(2.5)  # type: ignore[arg-type]
    narrow = [(image, mask.astype(np.int8)) for image, mask in real_items(2)]
    with pytest.raises(InputError, match="255 does not fit into a mask of dtype int8"):
        list(SynthMix(narrow, bank, 0.5, length=4))


def test_the_bank_is_opened_late_and_never_pickled(bank: Bank, tmp_path: Path) -> None:
    late = SynthMix(real_items(3), tmp_path / "not-there-yet", 0.5)
    assert len(late) == 6
    with pytest.raises(InputError, match="not-there-yet"):
        list(late)
    mix = SynthMix(real_items(1), bank.path, 0.5, length=10)
    plain = len(pickle.dumps(mix))
    list(mix)
    assert len(pickle.dumps(mix)) <= plain + 50
    copy = pickle.loads(pickle.dumps(mix))
    assert origins(copy, 1) == origins(mix, 1)


def test_a_relative_bank_is_that_of_where_it_was_named(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bank.path.parent)
    mix = SynthMix(real_items(2), bank.path.name, 0.5)
    monkeypatch.chdir(tmp_path)
    assert len(list(mix)) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.2}, "ratio is 1.2"),
        ({"ratio": -0.1}, "ratio is -0.1"),
        ({"length": 0}, "length is 0"),
        ({"length": "5"}, "length is '5'"),
        ({"length": float("nan")}, "length is nan"),
        ({"seed": None}, "seed is None"),
        ({"dataset": []}, "empty"),
        ({"schedule": "first"}, "schedule is 'first': choose one of constant, synthetic-first"),
        ({"epochs": 4}, "a constant share has no use for epochs"),
        ({"schedule": "synthetic-first"}, "epochs is None: synthetic-first needs"),
        ({"schedule": "synthetic-first", "epochs": 0}, "epochs is 0: synthetic-first needs"),
        ({"schedule": "synthetic-first", "epochs": "4"}, "epochs is '4': synthetic-first needs"),
        ({"schedule": "synthetic-first", "epochs": 4, "ratio": 0.6}, "ratio is 0.6: of synth"),
    ],
)
def test_bad_settings_get_one_line(bank: Bank, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SynthMix(**{"dataset": real_items(2), "bank": bank.path, **settings})


@pytest.mark.parametrize("size", [0, "5", None])
def test_a_batch_is_a_whole_number_of_items(bank: Bank, size: Any) -> None:
    with pytest.raises(InputError, match=f"batch_size is {size!r}"):
        SynthMix(real_items(2), bank.path).batch_sampler(size)


@pytest.mark.parametrize("index", [slice(1, 3), "1", 1.5])
def test_an_index_is_one_whole_number_as_of_any_sequence(bank: Bank, index: Any) -> None:
    with pytest.raises(TypeError, match=r"one index: .*Subset|as an integer"):
        SynthMix(real_items(4), bank.path, 0.5)[index]


@pytest.mark.parametrize(
    ("image", "mask", "what"),
    [
        (np.zeros((*SIZE, 3), np.float32), np.zeros(SIZE, np.int64), r"\(36, 48, 3\) float32"),
        (np.zeros((3, *SIZE), np.uint8), np.zeros(SIZE, np.uint8), r"\(3, 36, 48\) uint8"),
        (np.zeros(SIZE, np.float32), np.zeros(SIZE, np.uint8), r"\(36, 48\) float32"),
        (np.zeros((*SIZE, 2), np.uint8), np.zeros(SIZE, np.uint8), r"\(36, 48, 2\) uint8"),
        (np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, bool), r"\(36, 48\) bool"),
        (np.zeros((*SIZE, 3), np.uint8), np.zeros((*SIZE, 1), np.uint8), r"\(36, 48, 1\) uint8"),
    ],
)
def test_items_unlike_the_banks_need_adapt(bank: Bank, image: Any, mask: Any, what: str) -> None:
    for item in ((image, mask), {"mask": mask, "image": image}):
        with pytest.raises(InputError, match=rf"yields .*{what} .*adapt"):
            list(SynthMix([item] * 4, bank.path, 0.5))


@pytest.mark.parametrize("ratio", [0.5, "auto"])
def test_a_bank_without_masks_is_refused(maskless: Bank, ratio: Any) -> None:
    with pytest.raises(InputError, match="pictures without masks"):
        list(SynthMix(real_items(4), maskless.path, ratio))


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_batch_that_will_not_stack_is_warned_of(bank: Bank, as_dict: bool) -> None:
    def batches(real: list[Any], **settings: Any) -> list[Any]:
        items = [{"image": i, "mask": m} for i, m in real] if as_dict else real
        mix = SynthMix(items, bank.path, 0.5, length=8, **settings)
        return list(DataLoader(mix, batch_sampler=mix.batch_sampler(4), collate_fn=list))

    small = [(np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8))] * 3
    told = r"are 30x40 px, those of .* 36x48, .*\(transform=standard_augmentation"
    with pytest.warns(UserWarning, match=told) as caught:
        batches(small)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches([*small, *real_items(3)])  # they vary by themselves
        batches(real_items(3))
        batches(small, transform=standard_augmentation(*SIZE))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_masks_have_the_type_of_the_real_ones(bank: Bank, dtype: Any) -> None:
    """A worker stacks a batch into the type of its first item, real or synthetic."""
    items = [(image, mask.astype(dtype) - 100) for image, mask in real_items(6)]
    mix = SynthMix(items, bank.path, 0.5)
    loader = DataLoader(
        mix, batch_sampler=mix.batch_sampler(3), num_workers=1, worker_init_fn=seed_worker
    )
    masks = [mask for _, mask in loader]
    assert {mask.dtype for mask in masks} == {torch.from_numpy(items[0][1]).dtype}
    assert min(int(mask.min()) for mask in masks) == -100


def test_a_bank_without_kept_samples_is_refused(empty_bank: Bank) -> None:
    with pytest.raises(InputError, match="no kept sample"):
        list(SynthMix(real_items(2), empty_bank.path))
