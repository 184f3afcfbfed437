"""The errors that the command line turns into one sentence and an exit status."""


class ContextureError(Exception):
    """Something went wrong that a user can mend; the message is one clear sentence."""

    exit_status = 1


class InputError(ContextureError, ValueError):
    """What the user gave cannot be used: says what was found, where, and how to mend it."""

    exit_status = 2


class CheckpointError(ContextureError):
    """No usable checkpoint, or an exact resume that cannot be exact."""

    exit_status = 3
