"""What pages load: one style sheet, one script, one icon; all of it in the package."""

from functools import cache
from pathlib import Path
from types import MappingProxyType

from contexture.reports.palette import DARK, LIGHT, custom_properties

FOLDER = Path(__file__).parent / "static"
TYPES = MappingProxyType({".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"})


@cache
def static_files() -> MappingProxyType[str, bytes]:
    """Every file by its name; the style sheet begins with the hues of the reports' figures."""
    files = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}
    hues = (
        f":root {{ {custom_properties(LIGHT)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {custom_properties(DARK)} }} }}\n\n"
    )
    return MappingProxyType({**files, "catalogue.css": hues.encode() + files["catalogue.css"]})
