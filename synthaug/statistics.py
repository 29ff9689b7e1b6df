"""Intervals of paired gains."""
