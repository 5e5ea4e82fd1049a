"""Tests of boilstream.query.predicates."""
