"""Tests of BoilStream; the folders mirror the package."""
