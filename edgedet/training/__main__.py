"""`python -m edgedet.training CONFIG.toml --data DIR --output DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgedet.errors import EdgedetError
from edgedet.training.train import train

parser = argparse.ArgumentParser(prog="python -m edgedet.training")
parser.add_argument("config", type=Path)
parser.add_argument("--data")
parser.add_argument("--output", type=Path)
parser.add_argument("--weights")
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()
try:
    train(
        options.config,
        options.data,
        options.output,
        weights=options.weights,
        resume=options.resume,
        report=lambda record: print(record, flush=True),
    )
except EdgedetError as exc:
    print(exc, file=sys.stderr)
    sys.exit(exc.exit_code)
