"""Give `print` back in PyFlink's workers; to be imported there before numba is.

A worker puts a method of its own in the place of ``builtins.print``, and numba, which registers
functions by module and name, then fails to import. Output still reaches the log: the worker
replaces ``sys.stdout.write`` as well.
"""

from __future__ import annotations

import builtins
from typing import Any

replaced: Any = getattr(builtins.print, "__self__", None)
if type(replaced).__name__ == "CustomPrint":
    builtins.print = replaced._print  # noqa: SLF001 - PyFlink's, see above
