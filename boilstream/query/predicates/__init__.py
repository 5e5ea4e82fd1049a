"""Conditions on rows: filters of DuckDB as vectorised expressions and as a test on file statistics."""
