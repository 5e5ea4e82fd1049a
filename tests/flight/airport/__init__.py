"""Tests of boilstream.flight.airport."""
