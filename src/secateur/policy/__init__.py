"""What to prune by and how much: a policy as a value, a TOML file, a preset or a one-line spec."""

from .parts import amount
from .policy import PRESETS, Policy, from_spec, from_toml

__all__ = ["PRESETS", "Policy", "amount", "from_spec", "from_toml"]
