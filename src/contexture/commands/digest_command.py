"""`contexture digest`: what changed among published results since the last letter, by e-mail."""

import argparse
import hashlib
import os
import sys
from pathlib import Path

from contexture.commands.console import say
from contexture.errors import InputError

PASSWORD = "CONTEXTURE_SMTP_PASSWORD"
FOLDER = "contexture/digest"


def run(options: argparse.Namespace) -> int:
    """Send what changed, then keep what is known; or print the letter."""
    from contexture.catalogue.digest import addresses, compose, digest, read_known, write_known
    from contexture.catalogue.library import load_library
    from contexture.catalogue.post import Server, send

    to = addresses(options.to, option="--to")
    sender = addresses(options.sender or to[0], option="--from")
    if len(sender) > 1:
        raise InputError("--from is one address")
    server = Server.parse(options.smtp, user=options.user, password=_password(options))
    if options.site and not options.site.startswith(("http://", "https://")):
        raise InputError(f"--site {options.site!r} is not an address such as https://example.org/catalogue/")
    state = Path(options.state) if options.state else user_state() / FOLDER / f"{_short(to)}.json"
    found = digest(load_library(options.results), read_known(state))
    if found.empty:
        say("nothing changed since the last letter: none is sent")
        return 0
    message = compose(found, sender=sender[0], to=to, site=options.site)
    if options.dry_run:
        print(message.as_string(), end="")
        return 0
    send(message, server, sender=sender[0], to=to)
    write_known(state, found)
    say(f"sent to {', '.join(to)}: {message['Subject']}")
    return 0


def _password(options: argparse.Namespace) -> str:
    password = os.environ.get(PASSWORD, "")
    if options.user and not password and not options.dry_run:
        raise InputError(f"--user needs a password in the environment variable {PASSWORD}")
    return password


def user_state() -> Path:
    """The user's folder for what cannot be computed again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state"))


def _short(to: list[str]) -> str:
    """A name for a set of addresses, so that each has a state of its own."""
    return hashlib.sha256("\n".join(sorted(to)).encode()).hexdigest()[:16]
