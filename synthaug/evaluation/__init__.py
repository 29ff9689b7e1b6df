"""How good generated pictures and masks are; what they are worth in training, `gain` tells.

- `bank_quality.evaluate`: a bank, beside standard augmentation of its training pair
- `painting_quality`: a painter of label maps, on held-out pairs
- `picture_quality`: a generator's pictures, beside held-out ones
"""
