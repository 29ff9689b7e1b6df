"""One room per GAN: its networks and its losses together."""
