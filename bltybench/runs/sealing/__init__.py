"""The end of a run folder's records: their conversion to Parquet, and records that arrive later."""
