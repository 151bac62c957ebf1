"""BLTYAPI on this machine: both endpoints, its errors, limits and headers, with a log of the truth."""
