"""Read and write data sets; reader and writer of a format live together."""
