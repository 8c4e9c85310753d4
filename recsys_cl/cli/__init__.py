"""``recsys-cl``: the functions of :mod:`recsys_cl.workflow` on the command line."""

from recsys_cl.cli.commands import app, main

__all__ = ["app", "main"]
