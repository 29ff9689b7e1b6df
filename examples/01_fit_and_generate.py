"""Fit a generator to one labelled picture, draw a bank from it, filter it, look at it.

python examples/01_fit_and_generate.py                       # the coins that ship with synthaug
python examples/01_fit_and_generate.py photo.jpg mask.png    # yours; the mask is an index PNG
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from synthaug import Bank, filter_bank, fit, generate, load_generator
from synthaug.config import FitConfig
from synthaug.demo import write_training_pair
from synthaug.report.figures import grid, overlay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("mask", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("example-01"))
    parser.add_argument("--iterations", type=int, help="training steps; the preset's if left out")
    parser.add_argument("-n", type=int, default=40, help="samples before the filter")
    args = parser.parse_args()
    image, mask = args.image, args.mask
    if image is None:
        image, mask = write_training_pair(args.out / "pair")

    # 1. Fit. The folder holds the generator, its training pair, metrics and sample grids.
    config = FitConfig(preset="fast", iterations=args.iterations)
    generator_path = fit(image, mask, args.out / "generator", config=config, overwrite=True)

    # 2. Generate. One line of bank/samples.jsonl says where each sample comes from.
    generate(generator_path, args.out / "bank", args.n, seed=0, overwrite=True)

    # 3. Filter: score every sample, drop the worst and the broken ones. No file is deleted.
    bank = filter_bank(args.out / "bank", drop=0.15)
    print(f"kept {len(bank)} of {len(bank.all_records)}")
    for record in bank.all_records:
        if not record["kept"]:
            print(f"dropped {record['id']}: {', '.join(record['reasons'])}")

    # 4. Look. A bank is a sequence of samples: RGB image, mask of class ids, id.
    shown = list(bank)[:12] or list(Bank(bank.path, include_dropped=True))[:12]
    picture = grid([overlay(sample, bank.classes) for sample in shown], columns=4)
    Image.fromarray(picture).save(args.out / "samples.png")

    # 5. Or skip the bank and draw single samples; a latent seed always gives the same one.
    sample = load_generator(generator_path).sample(seed=123)
    print(f"one more sample: {sample.size} px, class ids {set(sample.mask.ravel().tolist())}")
    print(f"look at {args.out / 'samples.png'}")


if __name__ == "__main__":
    main()
