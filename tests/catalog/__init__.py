"""Tests of boilstream.catalog."""
