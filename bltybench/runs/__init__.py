"""The record and the run folder: Attempt, manifest, spool, Parquet."""
