"""`python -m safegen` is `safegen`."""

from __future__ import annotations

import sys

from safegen.cli import main

if __name__ == "__main__":
    sys.exit(main())
