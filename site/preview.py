"""Draw _static/preview.png, which other sites show beside a link to the course. `python site/preview.py`."""

import sys
from pathlib import Path

SITE = Path(__file__).parent
sys.path[:0] = [str(SITE), str(SITE / "_ext")]
PAGE = """<!doctype html><meta charset="utf-8"><style>
body{margin:0;width:1200px;height:630px;display:flex;align-items:center;gap:80px;padding:0 80px;box-sizing:border-box;
font-family:Arial,sans-serif;color:#333;background:#fff}h1{font-size:92px;line-height:1.05;margin:0 0 28px}
p{font-size:31px;line-height:1.35;margin:0;color:#555}svg{width:400px;height:400px;flex:none}
path{stroke:#fff;stroke-width:.06}.plus{fill:#e08214}.minus{fill:#7a5aae}.zero{fill:#ddd}</style>
<div><h1>Backprop<br>by Hand</h1>
<p>Every rule derived, computed<br>in NumPy, checked<br>against torch.autograd</p></div>"""


def main():
    from check import QUIET, chromium
    from course import picture
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        page = browser.new_page(viewport={"width": 1200, "height": 630})
        page.set_content(PAGE + picture(["+---", "-+--", "--+-", "---+"]))
        page.screenshot(path=SITE / "_static" / "preview.png")
        browser.close()


if __name__ == "__main__":
    main()
