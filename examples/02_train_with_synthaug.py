"""Train a segmenter on one labelled picture, half of each batch from a bank.

python examples/01_fit_and_generate.py    # makes example-01/bank
python examples/02_train_with_synthaug.py example-01/bank
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from segmentation_models_pytorch import Unet
from torch.utils.data import DataLoader

from synthaug import Bank, SynthAugment, SynthMix, seed_worker
from synthaug.mixing import standard_augmentation
from synthaug.weights import efficientnet_lite0_state


def collate(items: list[tuple]) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.stack([torch.from_numpy(image) for image, _ in items])
    masks = torch.stack([torch.from_numpy(mask) for _, mask in items])
    return images.permute(0, 3, 1, 2) / 127.5 - 1, masks.long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bank", type=Path)
    parser.add_argument("--iterations", type=int, default=100, help="training steps")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    bank = Bank(args.bank)
    real = [(pair.image, pair.mask) for pair in bank.pairs()]  # any map-style dataset will do

    # Way 1, inside an albumentations pipeline: replace the pair with probability p.
    replace = SynthAugment(args.bank, p=0.5)
    drawn = replace(image=real[0][0], mask=real[0][1])
    print(f"SynthAugment gave a picture of {drawn['image'].shape} with its mask")

    # Way 2, as a dataset: exactly half of every batch is synthetic, the rest is real.
    height, width = 160, 160
    augment = standard_augmentation(height, width, seed=0)
    mix = SynthMix(real, args.bank, ratio=0.5, transform=augment, length=4 * args.iterations)
    loader = DataLoader(
        mix,
        batch_sampler=mix.batch_sampler(4),
        num_workers=args.workers,
        worker_init_fn=seed_worker,  # without it all workers augment alike
        collate_fn=collate,
    )
    torch.manual_seed(0)
    model = Unet("tu-tf_efficientnet_lite0", encoder_weights=None, classes=len(bank.classes))
    model.encoder.model.load_state_dict(efficientnet_lite0_state(), strict=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for step, (images, masks) in enumerate(loader, start=1):  # ids 0..N-1 are the channels here
        loss = torch.nn.functional.cross_entropy(model(images), masks, ignore_index=255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0 or step == args.iterations:
            print(f"step {step}/{args.iterations}  loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
