"""DuckDB statements over the Airport protocol, made by a client that behaves like the extension."""
