"""From a history to what a meta-model learns from."""
