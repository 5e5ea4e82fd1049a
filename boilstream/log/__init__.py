"""The commit log on the object store: the one place that says which rows exist.

Each process writes its own sequence of records, `_log/<writer>/<sequence>.json`, and nobody else
writes there, so committing needs no lock. A data file that no record names does not exist.
"""
