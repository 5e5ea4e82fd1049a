"""Tests of boilstream.catalog.sql."""
