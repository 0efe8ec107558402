"""Importers: torch's operators in terms of the registry's."""
