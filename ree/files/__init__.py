"""Files of every kind: written whole or not at all, read without trust."""

from ree.files.atomic import atomic_directory, atomic_file

__all__ = ["atomic_directory", "atomic_file"]
