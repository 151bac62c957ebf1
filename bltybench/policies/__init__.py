"""Retry policies of clients: pure, without I/O or clocks."""
