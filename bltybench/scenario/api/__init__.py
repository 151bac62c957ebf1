"""Tables of a target that say how its API is reached, and what its requests hold."""
