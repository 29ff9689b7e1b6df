"""``python -m synthaug`` is the command line."""

from synthaug.cli import main

main()
