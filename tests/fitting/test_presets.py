from __future__ import annotations

import pytest

from synthaug import gans
from synthaug.config import FitConfig
from synthaug.config.fit import ADAPTED, OF_PICTURES
from synthaug.errors import InputError
from synthaug.fitting import presets
from synthaug.fitting.adaptation import NAMES
from synthaug.fitting.presets import make_plan
from synthaug.fitting.presets.oasis import training_size


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr("synthaug.devices.cuda_works", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("synthaug.devices.cuda_works", lambda: False)


def test_auto_without_a_gpu_is_fast_and_says_why(no_gpu):
    plan = make_plan(FitConfig(), (384, 640), 2, 1)
    assert plan.preset == "fast"
    assert "no GPU" in plan.why


def test_auto_with_a_gpu_is_paper(gpu):
    plan = make_plan(FitConfig(), (384, 640), 2, 1)
    assert plan.preset == "paper"
    assert "GPU" in plan.why


def test_auto_leaves_the_gpu_alone_when_told_or_when_pictures_are_small(gpu):
    assert make_plan(FitConfig(accelerator="cpu"), (384, 640), 2, 1).preset == "fast"
    small = make_plan(FitConfig(), (40, 300), 2, 1)
    assert small.preset == "fast"
    assert "px a side" in small.why


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_what_was_asked_for_is_taken(preset, gpu):
    config = FitConfig(
        preset=preset, iterations=40, batch_size=3, max_size=64, seed=5, flip=False, sample_every=7
    )
    plan = make_plan(config, (48, 64), 3, 2)
    assert plan.preset == preset
    assert "as asked" in plan.why
    assert (plan.loop.iterations, plan.loop.batch_size, plan.loop.seed) == (40, 3, 5)
    assert plan.sample_every == 7
    assert not plan.flip
    assert [plugin.name for plugin in plan.plugins()] == ["diffaug", "diversity"]
    assert not plan.plugins()[0].flip
    assert plan.gan["bernoulli_steps"] < 40


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_the_plan_describes_a_gan_of_the_planned_size(preset, num_classes):
    plan = make_plan(FitConfig(preset=preset, max_size=64), (48, 64), num_classes, 2)
    gan = gans.build(plan.gan)
    pair = gan.generator(gan.latent(1))
    assert tuple(pair.images[0].shape[2:]) == plan.size
    assert (pair.mask is None) == (num_classes is None)


def test_more_pairs_train_longer_in_the_paper_preset():
    lengths = [
        make_plan(FitConfig(preset="paper"), (384, 640), 2, pairs).loop.iterations
        for pairs in (1, 60)
    ]
    assert lengths == [100_000, 300_000]


def test_the_fast_preset_pretrains_for_a_part_of_even_short_runs():
    for iterations in (1, 6, 700, 5000):
        plan = make_plan(FitConfig(preset="fast", iterations=iterations), (96, 160), 2, 1)
        assert 1 <= plan.gan["pretrain_steps"] <= max(1, iterations // 4)
        assert plan.gan["pretrain_steps"] <= plan.gan["bernoulli_steps"]


def test_oasis_on_a_gpu_is_small_else_fast(gpu):
    config = FitConfig(generator="oasis")
    assert make_plan(config, (192, 256), 11, 300).preset == "small"
    cpu = make_plan(FitConfig(generator="oasis", accelerator="cpu"), (192, 256), 11, 300)
    assert cpu.preset == "fast"
    assert (cpu.size, cpu.gan["name"]) == ((192, 256), "oasis")
    assert [plugin.name for plugin in cpu.plugins()] == ["diffaug"]


def test_oasis_as_published():
    plan = make_plan(FitConfig(generator="oasis", preset="paper"), (512, 1024), 34, 3000)
    assert plan.size == (192, 384)  # of the published area, on the discriminator's grid
    loop = plan.loop
    assert (loop.lr_generator, loop.lr_discriminator, loop.betas) == (1e-4, 4e-4, (0.0, 0.999))
    assert (loop.batch_size, loop.ema, loop.share_fakes) == (32, 0.9999, False)
    wide = FitConfig(generator="oasis", preset="paper", max_size=512)
    assert make_plan(wide, (512, 1024), 34, 3000).size == (256, 512)


@pytest.mark.parametrize(
    ("preset", "picture", "max_size", "size"),
    [
        ("paper", (720, 960), None, (192, 256)),
        ("small", (1024, 2048), None, (128, 256)),
        ("small", (480, 720), None, (192, 256)),
        ("fast", (192, 256), None, (192, 256)),
        ("fast", (360, 480), None, (192, 256)),
        ("fast", (2048, 1024), 100, (96, 48)),
        ("small", (300, 400), 100, (64, 64)),
    ],
)
def test_oasis_training_size_keeps_the_aspect_where_it_can(preset, picture, max_size, size):
    assert training_size(picture, preset, max_size) == size


@pytest.mark.parametrize(
    ("ablate", "changed"),
    [
        (None, {}),
        ("labelmix", {"labelmix": 0.0}),
        ("balance", {"balance": False}),
        ("noise", {"noise": False}),
    ],
)
def test_an_ablation_of_oasis_changes_one_thing(ablate, changed):
    options = {"generator": "oasis", "preset": "fast", "accelerator": "cpu"}
    whole = make_plan(FitConfig(**options), (192, 256), 11, 300)
    plan = make_plan(FitConfig(**options, ablate=ablate), (192, 256), 11, 300)
    assert plan.gan == whole.gan | changed
    assert plan.loop == whole.loop


def test_ablations_of_other_generators_are_refused():
    with pytest.raises(InputError, match="ablate=noise goes with --generator oasis"):
        make_plan(FitConfig(preset="fast", ablate="noise"), (64, 64), 2, 1)


@pytest.mark.parametrize("generator", [name for name in presets.GANS if name != "oasis"])
def test_generators_other_than_oasis_refuse_the_vgg_loss(generator):
    config = FitConfig(generator=generator, vgg="vgg19.pth")
    with pytest.raises(InputError, match="VGG loss goes with --generator oasis: add that, or"):
        presets.check(config)


def test_the_command_line_knows_which_generators_learn_from_pictures():
    squares = {name for name, kind in presets.GANS.items() if kind.square_px is not None}
    assert squares == set(OF_PICTURES)
    assert set(NAMES) == set(ADAPTED)
