"""Errors that a reader can act on: each message names the value, the valid ones and the next step."""


class RecsysError(Exception):
    """Base of every error that the package raises on purpose; the command line prints it as one line."""


class InputError(RecsysError, ValueError):
    """A file, column, name or option given by the caller cannot be used as it is."""


class AssetError(RecsysError, OSError):
    """A named data set or model could not be fetched, verified or stored."""


class TrainingError(RecsysError, ArithmeticError):
    """A training run went where no further step makes sense."""
