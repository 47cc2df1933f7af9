"""The version of the package, free of imports, so that every room can read it."""

__version__ = "0.2.0"
