"""Two limits at once: which pair fits if no single limiter does."""
