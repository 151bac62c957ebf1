"""Server-sent events: framing, chunks, deltas, and the fold of a stream."""
