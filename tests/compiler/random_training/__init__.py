"""Random small training programs, each trained here and by torch.

A program is Python source made from a seed: statements, blocks and helper functions out of the constructs,
which can all change a gradient or a state. `compare` trains it by ree.train and by a plain loop of torch in
float64. Every value has shape (rows, 4).
"""

from . import constructs as constructs
from .training import compare as compare
from .writer import CONSTRUCTS as CONSTRUCTS
from .writer import write as write
