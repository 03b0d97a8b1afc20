"""From a run to a verdict: measure an adapter, evaluate every bound, say which hold.

The one place where this package imports bounds; of `lora_bounds` all else takes the mask laws alone.
"""

from lora_dropout.audit.constants import Constants
from lora_dropout.audit.run import Audit, audit

__all__ = ["audit", "Audit", "Constants"]
