"""Interop with software that others wrote and certified."""
