"""The engine's kernels in Triton, each beside a plain torch function of the same name in `reference`."""

from __future__ import annotations

import os

# Products and sums fuse, whatever a version of Triton takes for its default; unset, 3.9 warns about it.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
