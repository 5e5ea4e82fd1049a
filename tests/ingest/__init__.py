"""Tests of boilstream.ingest."""
