"""DEFAULT and CHECK: SQL of DuckDB users, evaluated for every writer in processes of their own."""
