"""The attempt record and the run folder: manifest, spool, and Parquet files."""
