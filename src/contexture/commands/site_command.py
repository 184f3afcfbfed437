"""`contexture site build FOLDER`: the catalogue as a folder of pages."""

import argparse
import time
from pathlib import Path

from contexture.commands.console import say


def run(options: argparse.Namespace) -> int:
    """Write the site and say how much there is of it."""
    from contexture.catalogue.library import load_library
    from contexture.catalogue.site import build

    began = time.perf_counter()
    library = load_library(options.results)
    written = build(library, Path(options.folder), url=options.url)
    say(f"{options.folder}: {written} files, {len(library.papers)} papers, {time.perf_counter() - began:.1f} s")
    if library.results is None:
        say("no folder of published results was found, so no paper stands as measured (--results names one)")
    return 0
