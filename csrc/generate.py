"""Write what C++ takes from Python to the folder given (run by CMake): scalar functions, signatures of
kernels, numbers of the contract.

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

from ree.kernels import abi_cpp, constants  # noqa: E402
from ree.kernels.scalar import emit_cpp  # noqa: E402

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name, text in {
    "abi.hpp": abi_cpp.header(),
    "constants.hpp": constants.header(),
    "scalar_generated.inl": emit_cpp.emit_all(),
}.items():
    (folder / name).write_text(text)
