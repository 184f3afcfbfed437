"""The errors that the command line turns into one sentence and an exit status."""

import sysconfig
import traceback
from pathlib import Path


class ContextureError(Exception):
    """Something went wrong that a user can mend; the message is one clear sentence."""

    exit_status = 1


class InputError(ContextureError, ValueError):
    """What the user gave cannot be used: says what was found, where, and how to mend it."""

    exit_status = 2


class CheckpointError(ContextureError):
    """No usable checkpoint, or an exact resume that cannot be exact."""

    exit_status = 3


def told(fault: BaseException) -> str:
    """What was raised, in one line: a message of ours as it is, any other with its type and the user's line of code.

    >>> told(InputError("no file is named 'x'"))
    "no file is named 'x'"
    >>> told(ZeroDivisionError("division by zero"))
    'ZeroDivisionError: division by zero'
    """
    if isinstance(fault, ContextureError):
        return str(fault)
    said = str(fault).strip().partition("\n")[0]
    return f"{type(fault).__name__}{_place(fault)}: {said or 'no message'}"


def _place(fault: BaseException) -> str:
    """The innermost line that is neither ours nor an installed package's; nothing where there is none."""
    paths = sysconfig.get_paths()
    installed = tuple({paths["stdlib"], paths["purelib"], paths["platlib"]})
    for frame, line in reversed(list(traceback.walk_tb(fault.__traceback__))):
        name = frame.f_code.co_filename
        ours = frame.f_globals.get("__name__", "").partition(".")[0] == "contexture"
        if not ours and not name.startswith((*installed, "<")):
            return f" in {Path(name).name}, line {line}"
    return ""
