"""`python -m edgedet`, and so `torchrun -m edgedet train CONFIG.toml`."""

from __future__ import annotations

import sys

from edgedet.cli import main

if __name__ == "__main__":
    sys.exit(main())
