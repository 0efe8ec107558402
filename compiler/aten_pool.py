"""Importers of pooling, padding and resizing."""
