"""Attacks; each must be refused in the documented way."""
