"""MED-GAN: class-conditional images from a few labelled and many unlabelled ones.

After Liu et al., "Mask-Embedded Discriminator with Region-based Semantic Regularization for
Semi-Supervised Class-Conditional Image Synthesis" (CVPR 2021). A generator draws a sample of a
class, a discriminator judges sample and class inside a given box, and a classifier, trained along,
labels the unlabelled samples. Where the paper is silent or its formulas fail as printed:

- the identification loss (eq. 11, 12) is unbounded: we take -log D;
- a box that is cut off at the border is smaller than lambda says (sec. 3): boxes lie inside, and
  lambda is one minus their true share of the picture; boxes under 1/16 are drawn again;
- the regularisers compare features of unit length, so that the published margin of 0.5 has a
  meaning (squared distances lie in [0, 4]);
- the second box of the consistency loss is the first one, moved and resized by up to a tenth of a
  side, with up to a tenth of the picture changing;
- the generator's loss is non-saturating, one discriminator step goes with each of its steps;
- the classifier learns from labelled samples alone at first.
"""
