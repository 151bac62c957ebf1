"""BLTYAPI on this machine."""
