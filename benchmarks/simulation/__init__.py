"""Simulated limiters and APIs in virtual time, shared by the accuracy benchmarks and the tests."""
