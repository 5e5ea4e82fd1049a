"""Tests of boilstream.auth.providers."""
