"""Topics: names, schemas, and their definitions in the Iceberg catalog."""
