"""The command line: what the client does, for people and for pipes."""

from .commands import app, main

__all__ = ["app", "main"]
