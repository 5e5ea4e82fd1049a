"""The Airport dialect: what DuckDB's extension makes of Arrow Flight."""
