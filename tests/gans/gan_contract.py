"""What every GAN must do: inherit `GANContract`, override ``build`` and, if needed, the class
attributes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.gans.contract import GAN, PairBatch


class GANContract:
    size = (32, 48)
    num_classes: int | None = 3
    batch_size = 4
    without_gradient: tuple[str, ...] = ()
    """Prefixes of generator parameters that are never computed."""
    without_verdict: tuple[str, ...] = ()
    """Prefixes of discriminator parameters that nothing learns from: their gradient is zero."""

    def build(self) -> GAN:
        raise NotImplementedError

    @pytest.fixture
    def gan(self) -> GAN:
        torch.manual_seed(0)
        return self.build()

    def real(self, gan: GAN, labels: Tensor | None = None) -> PairBatch:
        images = torch.rand(self.batch_size, 3, *self.size) * 2 - 1
        if self.num_classes is None:
            return gan.prepare(images, None)
        if labels is None:
            labels = torch.randint(0, self.num_classes, (self.batch_size, *self.size))
        if gan.paints_masks:
            return gan.prepare(images, labels)
        masks = F.one_hot(labels, self.num_classes).permute(0, 3, 1, 2).float()
        return gan.prepare(images, masks)

    def test_generated_pairs_have_the_size_and_range_of_real_ones(self, gan: GAN) -> None:
        fake, real = gan.generator(gan.latent(self.batch_size)), self.real(gan)
        assert fake.images[0].shape[2:] == self.size
        assert [i.shape for i in fake.images] == [i.shape for i in real.images]
        assert all(image.abs().max() <= 1 for image in fake.images)
        if self.num_classes is None:
            assert fake.mask is None
            assert real.mask is None
        else:
            assert fake.mask.shape == real.mask.shape
            assert fake.mask.dtype == real.mask.dtype
        if self.num_classes is not None and not gan.paints_masks:
            assert torch.allclose(fake.mask.sum(1), torch.ones(self.batch_size, *self.size))

    def test_losses_are_finite_and_per_sample(self, gan: GAN) -> None:
        fake, real = gan.generator(gan.latent(self.batch_size)), self.real(gan)
        for terms in (gan.discriminator_terms(real, fake, 0), gan.generator_terms(fake, 0)):
            assert terms
            for name, term in terms.items():
                assert term.shape == (self.batch_size,), name
                assert term.isfinite().all(), name

    def test_one_sample_is_enough(self, gan: GAN) -> None:
        fake = gan.generator(gan.latent(1))
        real = self.real(gan)
        one = PairBatch(
            tuple(image[:1] for image in real.images), None if real.mask is None else real.mask[:1]
        )
        for term in gan.discriminator_terms(one, fake, 0).values():
            assert term.isfinite().all()

    def test_a_real_batch_of_one_class_is_fine(self, gan: GAN) -> None:
        fake = gan.generator(gan.latent(self.batch_size))
        labels = torch.zeros(self.batch_size, *self.size, dtype=torch.long)
        for term in gan.discriminator_terms(self.real(gan, labels), fake, 0).values():
            assert term.isfinite().all()

    def test_the_generator_step_teaches_the_generator_alone(self, gan: GAN) -> None:
        gan.discriminator.requires_grad_(False)
        fake = gan.generator(gan.latent(self.batch_size))
        total(gan.generator_terms(fake, 0)).backward()
        assert all(p.grad is None for p in gan.discriminator.parameters())
        for name, parameter in gan.generator.named_parameters():
            if not name.startswith(self.without_gradient or ("-",)):
                assert parameter.grad is not None, name
                assert parameter.grad.abs().sum() > 0, name

    def test_the_discriminator_step_teaches_the_discriminator_alone(self, gan: GAN) -> None:
        fake = gan.generator(gan.latent(self.batch_size))
        total(gan.discriminator_terms(self.real(gan), fake, 0)).backward()
        assert all(p.grad is None for p in gan.generator.parameters())
        for name, parameter in gan.discriminator.named_parameters():
            if parameter.requires_grad and not name.startswith(self.without_verdict or ("-",)):
                assert parameter.grad is not None, name
                assert parameter.grad.abs().sum() > 0, name

    def test_sampling_changes_nothing_and_ignores_neighbours(self, gan: GAN) -> None:
        gan.eval()
        before = {name: tensor.clone() for name, tensor in gan.state_dict().items()}
        z = gan.latent(self.batch_size)
        with torch.no_grad():
            together, alone = gan.generator(z), gan.generator(z[1:2])
        assert torch.allclose(together.images[0][1:2], alone.images[0], atol=1e-5)
        for name, tensor in gan.state_dict().items():
            assert torch.equal(tensor, before[name]), name

    def test_the_state_is_the_whole_model(self, gan: GAN) -> None:
        fake = gan.generator(gan.latent(self.batch_size))
        total(gan.discriminator_terms(self.real(gan), fake, 0)).backward()
        torch.manual_seed(1)
        other = self.build()
        other.load_state_dict(gan.state_dict(), strict=True)
        gan.eval(), other.eval()
        z = gan.latent(2)
        with torch.no_grad():
            assert torch.equal(gan.generator(z).images[0], other.generator(z).images[0])

    def test_the_same_seed_gives_the_same_losses(self) -> None:
        values = []
        for _ in range(2):
            torch.manual_seed(3)
            gan = self.build()
            fake = gan.generator(gan.latent(self.batch_size))
            values.append(total(gan.discriminator_terms(self.real(gan), fake, 0)))
        assert torch.equal(*values)


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([term.mean() for term in terms.values()]).sum()
