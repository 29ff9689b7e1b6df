"""RUN: all stages one after the other; the same command goes on where it stopped.

- `recipes`: a recipe from end to end; a comparison of banks that are there
- `sources`: the stages that make what the arms of one unit show
"""
