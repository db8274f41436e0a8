"""Engines: where SQL over Parquet files is computed."""
