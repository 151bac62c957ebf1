"""Rate-limit headers compared with the limiter that was found."""
