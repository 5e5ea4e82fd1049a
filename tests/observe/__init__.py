"""Tests of boilstream.observe."""
