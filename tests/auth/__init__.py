"""Tests of boilstream.auth."""
