"""One run: its specification, context, audit, live counts, and budget."""
