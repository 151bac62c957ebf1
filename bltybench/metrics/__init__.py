"""Tables from attempts: pure functions from frames to frames. docs/method.md gives their formulas."""
