"""The version, in one place; it is also part of what a cached kernel is recognised by."""

__version__ = "0.1.0"
