"""`python -m dmbp_jax.cli`, the same as `dmbp`."""

import sys

from dmbp_jax.cli import main

sys.exit(main())
