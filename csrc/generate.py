"""Write the C++ form of every scalar function to the path given (run by CMake).

The package need not be installed, and nothing but the standard library is imported: `ree` is a
stand-in whose kernels are those of this source tree.
"""

import sys
from pathlib import Path
from types import ModuleType

package, kernels = ModuleType("ree"), ModuleType("ree.kernels")
package.__path__ = []
kernels.__path__ = [str(Path(__file__).resolve().parent.parent / "kernels")]
sys.modules.update({"ree": package, "ree.kernels": kernels})
sys.dont_write_bytecode = True

from ree.kernels.scalar_cpp import emit_all  # noqa: E402

target = Path(sys.argv[1])
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text(emit_all())
