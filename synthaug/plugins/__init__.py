"""Data-efficient training plug-ins: a few hooks each, with a state of their own."""
