"""The HTML edition: `byhand site`, or `python -m byhand.site` where only site/requirements.txt is installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE, OUTPUT = ROOT / "site", ROOT / "_build" / "html"


class SiteError(Exception):
    """The site cannot be built. The text says why and what to do."""


def build(serve=False):
    """Build the site from the stored outputs into _build/html; with serve, also show it and follow changes.

    Everything is read anew, so that no page is left from an earlier configuration. Raises SiteError
    when a part is not installed, and when a page has a broken link, a formula that KaTeX refuses, a
    figure without alt text or too much weight; the lines above it say where.
    """
    program = "sphinx_autobuild" if serve else "sphinx"
    missing = [part for part in (program, "myst_nb", "furo", "sphinxcontrib.katex") if not _is_installed(part)]
    if missing:
        raise SiteError(f"Not installed: {', '.join(missing)}. Run `python -m pip install -r site/requirements.txt`.")
    options = ["--open-browser", "--port=0", "--ignore=*/_build/*"] if serve else ["-W", "--keep-going", "-E"]
    command = [sys.executable, "-m", program, *options, "-q", "-c", SOURCE, ROOT, OUTPUT]
    if subprocess.run(list(map(str, command)), cwd=ROOT).returncode:
        raise SiteError("The site was not built: mend what the lines above name.")


def _is_installed(part):
    try:
        return importlib.util.find_spec(part) is not None
    except ModuleNotFoundError:
        return False


def site(serve: bool = False):
    """Build the HTML edition into _build/html; with --serve, also show it and rebuild on change."""
    try:
        build(serve)
    except SiteError as error:
        sys.exit(str(error))
    print(f"Built {OUTPUT / 'index.html'}")


if __name__ == "__main__":
    site(serve="--serve" in sys.argv[1:])
