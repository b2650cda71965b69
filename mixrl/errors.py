"""The exceptions that mixrl raises on purpose.

    MixrlError            anything below; ``exit_code`` is what the command line returns
    ├── InputError        bad input or usage: names the file or value, and the mend   (exit code 2)
    └── ProcessingError   good input, but the work failed (disk full, tool missing)   (exit code 1)

Messages are one line: what is wrong, with the file or value, then how to mend it.
"""

from __future__ import annotations


class MixrlError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is the command line's exit status."""

    exit_code = 1


class InputError(MixrlError):
    """Bad input or usage: the message names the file or value and says how to mend it."""

    exit_code = 2


class ProcessingError(MixrlError):
    """The input was good but the work could not be done (disk full, permission, missing tool)."""

    exit_code = 1
