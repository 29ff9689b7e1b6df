"""Metrics of images and masks: Frechet distances, perceptual distances, overlap."""
