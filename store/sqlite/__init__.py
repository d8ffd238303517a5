"""The file of a history: connection, schema, rows."""
