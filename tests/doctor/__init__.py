"""Tests of `boilstream doctor`."""
