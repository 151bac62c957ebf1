"""Server-sent events: framing, deltas, and the fold of a stream."""
