"""Importers: what others recorded becomes a history. Each one is a module of its own, loaded when it is used."""
