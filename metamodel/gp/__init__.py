"""Gaussian processes over tasks: the default meta-model and what every kind shares."""
