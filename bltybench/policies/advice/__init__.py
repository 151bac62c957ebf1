"""Settings for clients: the pace that limits allow, text to copy, and what to expect."""
