"""Looks for what is wrong with a configuration or a token, and says what to change."""
