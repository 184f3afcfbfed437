"""Before anything imports Triton: its interpreter is switched on; where there is no Triton, kernels are left out."""

import os
from importlib.util import find_spec

os.environ.setdefault("TRITON_INTERPRET", "1")
collect_ignore_glob = [] if find_spec("triton") else ["src/contexture/ops/triton/*"]
