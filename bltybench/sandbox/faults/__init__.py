"""Faults on purpose: drawn per request and per connection, and recorded in the truth log."""
