"""GPU kernels run in Triton's interpreter here, so that every machine tests their bits. Set before any
kernel is defined; tests that compile kernels use processes of their own."""

import os

os.environ["TRITON_INTERPRET"] = "1"
