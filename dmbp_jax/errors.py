"""Every error the library raises on purpose, one class per explainable mistake.

A message names the argument, what was expected and what came: "Expected …, got …".
"""


class DmbpError(Exception):
    """Base of all errors raised on purpose; catching it catches nothing else."""


class InputError(DmbpError, ValueError):
    """An argument has a right type but a wrong shape, range, length or value."""


class InputTypeError(DmbpError, TypeError):
    """An argument has a wrong Python type or a wrong dtype."""


class UnsupportedNetworkError(DmbpError, ValueError):
    """The network is not made of affine operations, ReLUs and max-pools."""


class NoReluError(UnsupportedNetworkError):
    """No ReLU lies between the input and the logits, so there is nothing to mask."""


class ControlFlowError(UnsupportedNetworkError):
    """A part that depends on the input sits in a while loop, a cond or a loop that is too long."""


class NonAffineError(UnsupportedNetworkError):
    """A non-affine operation other than ReLU and max-pool lies on the path from the input."""


class UnknownAxesError(UnsupportedNetworkError):
    """It is not known where the rows and columns of a layer are, and a method needs them."""


class SiteNotFoundError(DmbpError, LookupError):
    """No site (layer) of the network has the requested name."""


class WeightsError(DmbpError, ValueError):
    """A weights file cannot be used."""


class UnsafeCheckpointError(WeightsError):
    """A checkpoint asks for something other than tensors; nothing of it was executed."""


class CorruptCheckpointError(WeightsError):
    """A checkpoint is truncated, or its sizes contradict each other."""


class KeyMismatchError(WeightsError):
    """Weights and network disagree; the message lists every missing, unused or misshapen key."""


class DownloadError(DmbpError, OSError):
    """Weights could not be fetched; the message says what to fetch by hand and where to put it."""


class DataError(DmbpError, ValueError):
    """A dataset folder or file is not laid out as its reader expects."""


class ImageError(DataError):
    """One picture cannot be decoded; the message says which and why."""


class ResumeError(DmbpError, ValueError):
    """Results on disk cannot be continued; the message says which setting differs, or why."""


class StoreError(DmbpError, OSError):
    """A store of a large run cannot be read or written; the message says which, and why."""


class StoreFullError(StoreError):
    """No space is left where the store lies; what was committed is whole."""


class StoreReadOnlyError(StoreError):
    """The store may not be written by this user or on this file system."""


class DeviceMemoryError(DmbpError, MemoryError):
    """The device ran out of memory; the message names the argument to lower."""


class MissingPackageError(DmbpError, ImportError):
    """An optional package is not installed; the message says how to install it."""
