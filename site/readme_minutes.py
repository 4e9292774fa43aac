"""Write the minutes that each lecture, exercise and project states into the README's table of units, and their sum.

`python site/readme_minutes.py` after one of them was changed; a test says when it is due.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
COLUMN = 3  # of the table, counted from 0


def minutes(path):
    """What the head of a notebook asks of its reader."""
    head = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    return int(re.search(r"\*Time:\* (\d+) minutes", head)[1])


def of_unit(stem):
    """Those of the lecture and of the exercise, or those of a project."""
    paths = (ROOT / folder / f"{stem}.ipynb" for folder in ("lectures", "solutions"))
    return [minutes(path) for path in paths if path.exists()]


def with_minutes(text):
    """The README with the minutes of today."""
    lines, total = text.splitlines(), 0
    for number, line in enumerate(lines):
        stem = re.search(r"\(solutions/([\w-]+)\.ipynb\)", line)
        if stem and re.match(r"\| \d\d \|", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found = of_unit(stem[1])
            total += sum(found)
            cells[COLUMN] = " + ".join(map(str, found))
            lines[number] = f"| {' | '.join(cells)} |".replace("|  |", "| |")
    return re.sub(r"about \d+ hours", f"about {total / 60:.0f} hours", "\n".join(lines) + "\n")


if __name__ == "__main__":
    README.write_text(with_minutes(README.read_text(encoding="utf-8")), encoding="utf-8")
