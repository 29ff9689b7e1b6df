"""Learn to paint label maps; edit one, invent new ones, and recreate an unlabelled photograph.

python examples/03_edit_and_recreate.py                        # the coins: shows the way, no more
python examples/03_edit_and_recreate.py --images DIR --masks DIR   # yours: tens of pairs and up
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from synthaug import fit, generate, load_generator
from synthaug.config import FitConfig
from synthaug.demo import write_training_pair
from synthaug.generation import Layouts, MapSegmenter
from synthaug.report.figures import grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--photo", type=Path, help="to recreate; a training picture if left out")
    parser.add_argument("--out", type=Path, default=Path("example-03"))
    parser.add_argument("--iterations", type=int, help="training steps; the preset's if left out")
    parser.add_argument("--max-size", type=int, help="longer side in training, px")
    args = parser.parse_args()
    data = {"images": args.images, "masks": args.masks}
    if args.images is None:
        data = dict(zip(("image", "mask"), write_training_pair(args.out / "pair"), strict=True))

    # 1. Fit. Beside the painter, the folder keeps the discriminator, which segments.
    config = FitConfig(generator="oasis", iterations=args.iterations, max_size=args.max_size)
    path = fit(out=args.out / "painter", config=config, overwrite=True, **data)
    painter = load_generator(path)
    mask = painter.pairs[0].mask

    # 2. Edit: the same mask with other noise for its largest object class alone, then a strip.
    ids, pixels = np.unique(mask[np.isin(mask, painter.classes.ids[1:])], return_counts=True)
    name = int(ids[pixels.argmax()])
    versions = painter.versions(mask, 4, resample=name)
    strip = painter.between(mask, (0, 3), 4, per="region")
    Image.fromarray(grid([*versions, *strip], columns=4)).save(args.out / "edits.png")

    # 3. New label maps by seed; half of them drawn for a class. generate() takes their kind.
    layouts = Layouts([pair.mask for pair in painter.pairs], painter.classes, rare=(name,))
    share = np.mean([(layouts.layout(seed) == name).mean() for seed in range(20)])
    print(f"class {name}: {share:.1%} of the new maps, {(mask == name).mean():.1%} of the first")
    bank = generate(painter, args.out / "bank", 8, layouts="edited", rare=(name,), overwrite=True)
    print(f"{len(bank)} pairs with maps that nobody drew: {bank.path}")

    # 4. Recreate: a photograph -> its predicted label map -> new photographs.
    photo = painter.pairs[0].image
    if args.photo is not None:
        photo = np.array(Image.open(args.photo).convert("RGB"))
    predicted = MapSegmenter(path).segment(photo)
    again = painter.versions(predicted, 3, seed=10)
    Image.fromarray(grid([photo, *again], columns=4)).save(args.out / "recreated.png")
    print(f"look at {args.out / 'edits.png'} and {args.out / 'recreated.png'}")


if __name__ == "__main__":
    main()
