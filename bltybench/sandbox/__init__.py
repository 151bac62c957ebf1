"""The sandbox: BLTYAPI on this machine: endpoints, errors, limits, headers, and a ground-truth log."""
