"""`jaxkd.run.config`, under its old name until jaxkd 0.3."""

import sys
import warnings

from jaxkd.run import config

warnings.warn(
  'jaxkd.config is now jaxkd.run.config', FutureWarning, stacklevel=2
)
sys.modules[__name__] = config
