"""Faults injected on purpose."""
