"""Artifacts: a program on disk.

    X.ree/manifest.json          versions, names, digests of the other files
    X.ree/graph.txt              the canonical graph; its SHA-256 is the program's identity
    X.ree/weights.safetensors    weights by name
    X.ree/constants.safetensors  large constants by number
    X.ree/examples.safetensors   example inputs
    X.ree/states.safetensors     what the states are at first, if the program has states that begin as something
    X.ree/origins.json           per node: source line and module (beside the identity)

Nothing in an artifact is executed, and what else lies in the directory is not read. Loading checks, in this
order: the manifest's schema; that the files it lists are there, of the stated sizes; their digests; the graph's
grammar and legality; that weights and states have the graph's types; the program hash and the weights root.
"""

from __future__ import annotations

from os import PathLike

from ree.artifact.reading import read_directory
from ree.artifact.writing import save, to_files
from ree.errors import public
from ree.float_mode import clean_floats
from ree.program import Program, from_files

__all__ = ["from_files", "load", "save", "to_files"]


@public
@clean_floats
def load(path: str | PathLike[str]) -> Program:
    """The program of an artifact; ArtifactError if anything about it is not as it must be."""
    return Program.of(read_directory(path))
