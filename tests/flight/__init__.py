"""Tests of boilstream.flight."""
