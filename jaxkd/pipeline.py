"""`jaxkd.run.pipeline`, under its old name until jaxkd 0.3."""

import sys
import warnings

from jaxkd.run import pipeline

warnings.warn(
  'jaxkd.pipeline is now jaxkd.run.pipeline', FutureWarning, stacklevel=2
)
sys.modules[__name__] = pipeline
