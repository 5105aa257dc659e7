"""Which exceptions are the user's to fix, and the one line that says so."""

from __future__ import annotations

import errno

from omegaconf.errors import OmegaConfBaseException

_FULL = "Fix: free some space, or set run_dir and cache_dir to folders on a larger disk"
_DENIED = (
    "Fix: give this user the right to read or write it, or set run_dir and cache_dir to your own folders"
)
_FILE = "Fix: name another folder; a part of this path is a file"
_BY_ERRNO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.EEXIST: _FILE,
    errno.ENOTDIR: _FILE,
}
# Of TensorFlow, by the name of the class: importing TensorFlow takes seconds.
_BY_CLASS = {"ResourceExhaustedError": _FULL, "PermissionDeniedError": _DENIED}


def user_message(error: BaseException) -> str | None:
    """The error and its fix in one line; None for an error of the program, which needs its traceback."""
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    if isinstance(error, ValueError | FloatingPointError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory ({error}). Fix: fewer or smaller lists at a time, or a larger machine"
    fix = _BY_ERRNO.get(error.errno or 0) if isinstance(error, OSError) else None
    fix = fix or _BY_CLASS.get(type(error).__name__)
    return f"{error}. {fix}" if fix else None
