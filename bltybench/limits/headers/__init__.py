"""Rate-limit headers compared with decisions and with the fitted limiter."""
