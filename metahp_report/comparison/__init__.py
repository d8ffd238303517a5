"""Live comparisons: their records, read from a history, and the report of one."""
