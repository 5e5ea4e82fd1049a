"""Tests of boilstream.query."""
