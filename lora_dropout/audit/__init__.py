"""From a run to a verdict: measure an adapter, evaluate every bound, say which hold.

With `probes.gibbs` the one place where this package imports bounds; all else takes nothing but the
mask laws from `lora_bounds`.
"""

from lora_dropout.audit.constants import Constants
from lora_dropout.audit.verdict import Audit, audit

__all__ = ["audit", "Audit", "Constants"]
