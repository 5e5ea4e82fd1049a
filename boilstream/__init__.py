"""BoilStream: an Arrow Flight ingestion server whose acknowledged rows are durable Parquet."""

__version__ = "0.1.0"
