"""Which errors are the user's to mend, and how they read then."""

from __future__ import annotations

import errno

from omegaconf.errors import OmegaConfBaseException

_FULL = "mend: free some, or set run_dir and cache_dir to a larger one"
_RIGHT = (
    "mend: give this user the right to read or write it, or set run_dir and cache_dir to folders of your own"
)
_FILE = "mend: a part of this path is a file; name another folder"
_OF_SYSTEM = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: _RIGHT,
    errno.EEXIST: _FILE,
    errno.ENOTDIR: _FILE,
}
_OF_TENSORFLOW = {
    "ResourceExhaustedError": _FULL,
    "PermissionDeniedError": _RIGHT,
}  # by class: it is slow to import


def explained(error: Exception) -> str | None:
    """The error and its mend in one line; None if it is not the user's, so that it shows where it comes from."""
    if isinstance(error, ValueError | FloatingPointError | OmegaConfBaseException):
        return str(error)
    if isinstance(error, MemoryError):
        return f"the memory does not suffice ({error}); mend: fewer or smaller lists at a time, or a larger machine"
    mend = _OF_SYSTEM.get(error.errno or 0) if isinstance(error, OSError) else None
    mend = mend or _OF_TENSORFLOW.get(type(error).__name__)
    return f"{error}; {mend}" if mend else None
