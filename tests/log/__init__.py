"""Tests of boilstream.log."""
