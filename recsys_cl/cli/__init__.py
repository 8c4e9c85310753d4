"""Command line ``recsys-cl``: the functions of :mod:`recsys_cl.workflow` as commands."""

from recsys_cl.cli.commands import app, main

__all__ = ["app", "main"]
