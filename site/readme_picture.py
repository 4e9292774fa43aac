"""Write the README's picture, which is a figure that a lecture stores.

`python site/readme_picture.py` after the lecture was changed; a test says when it is due.
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LECTURE = ROOT / "lectures" / "61-two-layer.ipynb"
PICTURE = ROOT / "site" / "_static" / "jacobian.svg"


def stored_svg():
    """The SVG of the lecture's figure that compares the two forms."""
    cells = json.loads(LECTURE.read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in cells if "column_form = " in "".join(cell["source"])]
    (svg,) = [out["data"]["image/svg+xml"] for out in cell["outputs"] if "data" in out]
    return "".join(svg).rstrip("\n") + "\n"


if __name__ == "__main__":
    PICTURE.write_text(stored_svg(), encoding="utf-8")
