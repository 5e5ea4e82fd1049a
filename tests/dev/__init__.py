"""Tests of boilstream.dev."""
