"""Composition at full size: objects of labelled pairs, moved, over inpainted backgrounds."""
