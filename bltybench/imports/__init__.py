"""Import of logs: each request in a log becomes an attempt of a run. Nothing is sent."""
