"""The tuning decision, once for every host."""
