"""Sphinx configuration of the HTML edition. `byhand site` builds it; nothing is executed."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "Backprop by Hand"
author = "the authors of Backprop by Hand"
copyright = f"2026, {author}"

# Where the course lives, once it is published. Each of the three may be empty.
repository = os.environ.get("COURSE_REPOSITORY", "")  # owner/name on GitHub: links to Binder and to edit
branch = os.environ.get("COURSE_BRANCH", "main")
html_baseurl = os.environ.get("COURSE_URL", "")  # with a final /: sitemap, canonical links, OpenGraph picture

language = os.environ.get("COURSE_LANGUAGE", "en")
locale_dirs, gettext_compact = [str(HERE / "locale")], False

extensions = ["myst_nb", "sphinx_copybutton", "course"]
root_doc = "site/contents"  # index.html is the template home.html
include_patterns = ["site/contents.md", "lectures/**", "exercises/**", "solutions/**", "mathnotes/**"]
exclude_patterns = ["**/.*", "**/*.toml", "_build"]
html_additional_pages = {"index": "home.html", "404": "404.html"}

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "prerendered"  # in _ext/course.py

html_theme = "furo"
html_title = project
html_static_path, templates_path = ["_static"], ["_templates"]
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_favicon = "_static/favicon.svg"
html_permalinks_icon = "#"
html_use_index = False
html_show_sphinx = False
html_sourcelink_suffix = ""  # _sources/lectures/x.ipynb is the notebook itself, to download
html_show_search_summary = False  # snippets would print each formula three times, and need a server
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#00598c", "color-brand-content": "#00598c"},
    "dark_css_variables": {"color-brand-primary": "#7cc4f5", "color-brand-content": "#7cc4f5"},
}
if repository:
    html_theme_options |= {"source_repository": f"https://github.com/{repository}/", "source_branch": branch}
    html_theme_options |= {"source_directory": "", "top_of_page_buttons": ["edit"]}
html_context = {"repository": repository, "branch": branch}
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
copybutton_selector = "div.cell_input pre, div.highlight-python pre, div.highlight-sh pre"

# A unit belongs to the part that its tens digit names.
course_parts = {
    "0": "Before we start",
    "1": "Chains",
    "2": "Elementwise: diagonal",
    "3": "Moving data: selection",
    "4": "Linear maps: Kronecker",
    "5": "Losses",
    "6": "Networks",
    "7": "When checks lie",
}
course_page_limit = 160  # KiB that a page may weigh, compressed, fonts apart; check.py measures all of it
course_home_limit = 80
