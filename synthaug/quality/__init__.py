"""Metrics of images and masks.

- `features`: the networks that look at pictures
- `frechet`, `kernel`: SIFID and FID; KID
- `perceptual`, `structure`: perceptual distance and diversity; MS-SSIM
- `overlap`: confusion matrix, IoU, DAVIS J and F
- `appearance`: colour and texture of each class
"""
