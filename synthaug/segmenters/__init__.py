"""Downstream segmenters that measure what synthetic data is worth."""
