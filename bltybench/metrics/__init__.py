"""Tables from attempts: pure functions, frame in, frame out. docs/method.md gives their formulas."""
