"""The Arrow Flight face of the server: thin adapters without rules of their own."""
