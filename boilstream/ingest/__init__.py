"""The write path: append, validate, buffer, Parquet, commit."""
