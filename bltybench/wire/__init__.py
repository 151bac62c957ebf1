"""One timed HTTP exchange: socket, stamps, SSE, status, rate-limit headers."""
