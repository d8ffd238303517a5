"""Importers of what other tools recorded: a module each, listed in ``registry`` and loaded when it is used."""
