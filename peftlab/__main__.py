"""`python -m peftlab` is the same as `peftlab`."""

from __future__ import annotations

import sys

from peftlab.cli import main

sys.exit(main())
