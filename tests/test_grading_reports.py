"""The reports of grading: whole, exact, and harmless whatever a student writes."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from byhand.grading import reports
from byhand.grading.results import Result

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "＝1",
    "<script>alert(1)</script>",
    "</pre></details><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b]0;title\x07",
    "\x00\x08\x0b\x7f\x9b31m",
    "\u202egnp.exe",
    "\ud800",
    "\ufffe\U0001ffff",
    "::set-output name=points::100",
    "line\n::error::no\n##[command]no",
    "../../etc/passwd",
    "CON",
    "",
    ".",
    "]]>&amp;<!--",
    "x" * 10_000,
]
ACTIVE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def a_result(student="ann", question="relu_vjp", points=2.0, status="right", **more):
    return Result(student, more.pop("stem", "24-relu"), question, more.pop("maximum", 2.0), points, status, **more)


def a_class():
    wrong = "relu_vjp: wrong\ndx is wrong: 3 of 4 entries differ.\nFirst at [0, 1]: yours 1, reference 0."
    return [
        a_result("ann"),
        a_result("ann", "essay", None, "manual", answer="Because."),
        a_result("bob", points=0.0, status="wrong", reason=wrong, answer="def relu_vjp(dy, y, x):\n    return dy"),
        a_result("bob", "essay", None, "manual"),
        a_result("cho", points=None, status="ungraded", reason="The grader failed twice."),
        a_result("cho", "essay", 0.0, "missing"),
    ]


def hostile_class():
    return [
        a_result(text, points=0.0, status="wrong", reason=f"{text}\n{text}", answer=f"{text}\n{text}")
        for text in HOSTILE
    ]


@pytest.fixture
def written(tmp_path):
    """The reports of hostile students, {path: text}."""
    reports.write_all(hostile_class(), tmp_path, seed=7)
    return {path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in files_in(tmp_path)}


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}


# --- harmless ------------------------------------------------------------------------------------


def test_no_report_holds_an_active_character(written):
    for name, text in written.items():
        assert not ACTIVE.search(text.replace("\r\n", "\n")), name


def test_no_spreadsheet_cell_is_a_formula(written):
    for name in ("grades.csv", "totals.csv"):
        for row in csv.reader(io.StringIO(written[name])):
            assert not any(cell[:1] in tuple("=+-@\t\r＝＋－＠") for cell in row if cell), row


def test_harmless_cells_stay_as_they_are():
    assert reports.csv_cell("Kim Min-su, 2") == "Kim Min-su, 2"


def test_pages_hold_only_their_own_tags(written):
    plain_page = Tags(reports.feedback_page(a_class()[:2] + a_class()[2:3], seed=7))
    for name, text in written.items():
        if name.startswith("feedback/"):
            page = Tags(text)
            assert page.tags <= plain_page.tags, name
            assert page.attributes <= plain_page.attributes, name
            assert "default-src 'none'" in text
    assert "script" not in Tags(written["statistics.html"]).tags


def test_templates_in_an_answer_are_text(written):
    assert any("{{ 7 * 7 }}" in text for name, text in written.items() if name.startswith("feedback/"))


def test_junit_parses(written):
    cases = ElementTree.fromstring(written["junit.xml"].encode()).findall(".//testcase")
    assert len(cases) == len(HOSTILE)


def test_long_lines_are_cut(written):
    feedback = next(text for name, text in written.items() if name.startswith("feedback/xxx"))
    assert "6,000 more characters" in feedback
    assert max(map(len, feedback.split("\n"))) < 4_200


@pytest.mark.parametrize("text", ["::error::x", "  ::set-output name=a::b", "##[group]x", "a\n::stop-commands::t"])
def test_the_terminal_shows_no_workflow_command(text):
    shown = reports.for_terminal(text)
    assert "::" not in shown
    assert "##[" not in shown


def test_classroom_messages_hold_no_workflow_command():
    message = json.loads(base64.b64decode(reports.classroom(hostile_class())))["tests"]
    assert not any("::" in test["message"] for test in message)


# --- file names ----------------------------------------------------------------------------------


def test_every_student_has_files_of_their_own(written):
    assert sum(name.startswith("gradescope/") for name in written) == len(HOSTILE)
    assert sum(name.startswith("feedback/") for name in written) == len(HOSTILE)


@pytest.mark.parametrize(
    "names",
    [
        ["ann", "Ann", "ANN"],
        ["a b", "a_b", "a/b", "a\\b"],
        ["é", "e\u0301"],
        ["x" * 300, "x" * 301],
        ["김민수", "김 민수"],
        ["con", "con.txt", "nul", "..", "."],
        [""],
        ["\ud800", "\ud801"],
    ],
)
def test_file_names_do_not_collide(names, tmp_path):
    safe = reports.file_names(names)
    assert len({name.casefold() for name in safe.values()}) == len(names)
    for name in safe.values():
        assert re.fullmatch(r"[\w.~-]+", name)
        assert not name.startswith(".")
        assert not re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name), "Windows reserves these"
        assert len(f"{name}.json".encode()) <= 255
        (tmp_path / f"{name}.json").write_text("")


def test_a_student_cannot_take_the_file_name_of_another():
    made = reports.file_names(["a b"])["a b"]
    safe = reports.file_names(["a b", made])
    assert safe["a b"] != safe[made]


def test_plain_names_are_kept():
    assert reports.file_names(["ann", "김민수", "bob-2"]) == {"ann": "ann", "김민수": "김민수", "bob-2": "bob-2"}


# --- exact ---------------------------------------------------------------------------------------


def test_grades_have_a_row_a_student_and_question():
    rows = list(csv.DictReader(io.StringIO(reports.grades_csv(a_class()))))
    assert [(row["student"], row["question"], row["points"], row["max"], row["status"]) for row in rows] == [
        ("ann", "relu_vjp", "2", "2", "right"),
        ("ann", "essay", "", "2", "manual"),
        ("bob", "relu_vjp", "0", "2", "wrong"),
        ("bob", "essay", "", "2", "manual"),
        ("cho", "relu_vjp", "", "2", "ungraded"),
        ("cho", "essay", "0", "2", "missing"),
    ]


def test_totals_add_up():
    results = [*a_class(), a_result("ann", points=1.5, stem="51-softmax")]
    rows = {row["student"]: row for row in csv.DictReader(io.StringIO(reports.totals_csv(results)))}
    assert rows["ann"] == {
        "student": "ann", "24-relu": "2", "51-softmax": "1.5", "total": "3.5", "max": "6", "without points yet": "1"
    }  # fmt: skip
    assert rows["cho"]["without points yet"] == "1"


def test_junit_counts_what_pytest_would():
    suites = ElementTree.fromstring(reports.junit_xml(a_class(), 7).encode()).findall("testsuite")
    counts = {
        suite.get("name"): [int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")]
        for suite in suites
    }
    assert counts == {"ann/24-relu": [2, 0, 0, 1], "bob/24-relu": [2, 1, 0, 1], "cho/24-relu": [2, 1, 1, 0]}


def test_gradescope_leaves_out_what_is_not_marked_yet():
    made = reports.gradescope(a_class()[:2], seed=7)
    assert [(test["score"], test["max_score"], test["status"]) for test in made["tests"]] == [(2, 2, "passed")]
    assert "Still to be marked by a person: 1." in made["output"]


@pytest.mark.parametrize("points, maximum, score, most", [(0.5, 0.5, 1, 1), (1.5, 2.0, 1, 2), (0.0, 1.5, 0, 2)])
def test_classroom_points_are_whole(points, maximum, score, most):
    result = a_result(points=points, maximum=maximum, status="manual")
    made = json.loads(base64.b64decode(reports.classroom([result])))
    assert made["tests"][0]["score"] == score
    assert made["max_score"] == most
    assert isinstance(made["max_score"], int)


@pytest.mark.parametrize("students, status", [(slice(0, 1), "pass"), (slice(0, 3), "fail"), (slice(0, 6), "error")])
def test_classroom_status(students, status):
    assert json.loads(base64.b64decode(reports.classroom(a_class()[students])))["status"] == status


def test_feedback_shows_points_words_and_the_own_cell():
    page = reports.feedback_page(a_class()[2:4], seed=7)
    assert "0 of 2: wrong" in page
    assert "First at [0, 1]: yours 1, reference 0." in page
    assert "def relu_vjp(dy, y, x):\n    return dy" in page
    assert "to be marked by a person" in page


def test_without_a_sandbox_every_report_says_so(tmp_path):
    reports.write_all([a_result(unsafe=True)], tmp_path, 7)
    texts = {path.name: path.read_text(encoding="utf-8") for path in files_in(tmp_path)}
    assert reports.UNSAFE in texts["24-relu.html"]
    assert texts["grades.csv"].splitlines()[1].endswith(",no")
    assert '<property name="sandbox" value="no" />' in texts["junit.xml"]
    assert reports.UNSAFE in texts["ann.json"]
    assert "without a sandbox" in base64.b64decode(texts["ann.txt"]).decode()


def test_the_record_loses_nothing(tmp_path):
    results = [*a_class(), *hostile_class()]
    reports.write_all(results, tmp_path, seed=7)
    assert reports.read_record(tmp_path) == (results, 7)


# --- statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason, words",
    [
        ("c: wrong\ndx is wrong: 3 of 4 entries differ.\nFirst at [0]: yours 1, reference 2.", "dx is wrong"),
        ("c: wrong\nz is wrong: yours 1, reference 2.", "z is wrong"),
        (
            "c: wrong\ndx is wrong: 3 of 4.\nFirst at [0]: x.\nThe sign is wrong everywhere.",
            "The sign is wrong everywhere",
        ),
        ("c: wrong\nA common mistake gives these very numbers: the sum of dy is missing.", "the sum of dy is missing"),
        ("", "wrong"),
    ],
)
def test_a_diagnosis_is_the_same_for_the_same_mistake(reason, words):
    assert reports.diagnosis(a_result(status="wrong", points=0.0, reason=reason)) == words


def test_statistics_count_full_marks_and_show_no_words_of_students():
    results = [*a_class(), a_result("dan", points=0.0, status="error", reason="ValueError: look at me")]
    page = reports.statistics_page(results, 7)
    assert "33%" in page
    assert "ended in an error (1)" in page
    assert "look at me" not in page
    assert "$" not in page


def test_the_plot_is_the_same_each_time_and_is_xml():
    first, again = (reports.statistics_page(a_class(), 7) for _ in range(2))
    assert first == again
    ElementTree.fromstring(first[first.index("<svg") : first.index("</svg>") + 6])
