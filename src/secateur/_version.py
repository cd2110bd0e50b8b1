"""The version, for the package, its reports and its recipes."""

__version__ = "0.1.0"
