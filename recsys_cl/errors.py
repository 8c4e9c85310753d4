"""Exceptions with actionable messages: each names the bad value, the valid values and the next step."""


class RecsysError(Exception):
    """Base class of the package's own errors; the command line prints them as one line."""


class InputError(RecsysError, ValueError):
    """A file, column, name or option given by the caller is not valid."""


class AssetError(RecsysError, OSError):
    """A named data set or model could not be fetched, verified or stored."""


class TrainingError(RecsysError, ArithmeticError):
    """A training run cannot continue, for example because the loss is not finite."""
