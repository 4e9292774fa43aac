"""Reports of grading: one list of results, many files.

Names, answers and error messages come from students. `plain` takes from a text what could act on
whoever reads it; each report then escapes for its own format.
"""

import base64
import csv
import hashlib
import io
import json
import math
import re
import unicodedata
from collections import Counter
from dataclasses import asdict
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from byhand.grading.results import Result

WORDS = {
    "right": "right",
    "wrong": "wrong",
    "unanswered": "not answered",
    "error": "ended in an error",
    "timeout": "took too long",
    "died": "stopped by the sandbox",
    "manual": "marked by a person",
    "missing": "not handed in",
    "unreadable": "cannot be read",
    "ungraded": "could not be graded",
}
UNSAFE = "Graded without a sandbox: the answer could have changed its own points."
RECORD = "grades.json"


def write_all(results, out, seed):
    """Write every report of the results into the folder out, made if need be."""
    students = grouped(results, "student")
    names, stems = file_names(students), file_names({result.stem for result in results})
    texts = {
        RECORD: json.dumps({"seed": seed, "results": [asdict(result) for result in results]}, indent=1),
        "grades.csv": grades_csv(results),
        "totals.csv": totals_csv(results),
        "junit.xml": junit_xml(results, seed),
        "statistics.html": statistics_page(results, seed),
    }
    for student, own in students.items():
        texts[f"gradescope/{names[student]}.json"] = json.dumps(gradescope(own, seed), indent=1)
        texts[f"classroom/{names[student]}.txt"] = classroom(own)
        for stem, part in grouped(own, "stem").items():
            texts[f"feedback/{names[student]}/{stems[stem]}.html"] = feedback_page(part, seed)
    for name, text in texts.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")  # a full disk loses no earlier grades
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)


def read_record(out):
    """(results, seed) of an earlier grading into the folder out, nothing lost. Raises OSError when there was none."""
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    return [Result(**fields) for fields in record["results"]], record["seed"]


# --- making text harmless ------------------------------------------------------------------------

# Control characters but newline and tab, what changes the direction of text, lone surrogates and
# noncharacters: terminals, XML or readers stumble over each of them.
_ACTIVE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane + last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF))
    + "]"
)


def plain(text, width=4_000, lines=2_000):
    """text with active characters spelled out, as \\x1b, and with long lines and long texts cut."""
    rows = _ACTIVE.sub(lambda found: _spelled(ord(found[0])), text.replace("\r\n", "\n")).split("\n")
    kept = [row if len(row) <= width else f"{row[:width]}… ({len(row) - width:,} more characters)" for row in rows]
    more = [f"… ({len(rows) - lines:,} more lines)"] if len(rows) > lines else []
    return "\n".join(kept[:lines] + more)


def _spelled(code):
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def one_line(text, width=300):
    """plain text without line breaks and tabs."""
    return plain(" ".join(text.split()), width)


def for_terminal(text, width=300):
    """plain text of few lines in which no CI system finds a command."""
    return plain(text, width, lines=40).replace("::", ": :").replace("##[", "# #[")


def csv_cell(text):
    """One line that no spreadsheet takes for a formula; harmless text stays as it is."""
    line = one_line(text)
    return f"'{line}" if unicodedata.normalize("NFKC", line[:1]) in {"=", "+", "-", "@"} else line


def file_names(names):
    """{name: a safe file name}, no two of them equal, also where upper and lower case are not told apart."""
    safe = {name: re.sub(r"[^\w.-]", "_", unicodedata.normalize("NFC", name)).strip(".")[:60] for name in names}
    times = Counter(name.casefold() for name in safe.values())
    reserved = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)?(\..*)?", re.IGNORECASE)  # on Windows

    def keeps(name):
        return safe[name] == name and times[name.casefold()] == 1 and not reserved.fullmatch(name)

    # No safe name holds a ~, so a name that is kept never equals one that was made.
    return {name: name if keeps(name) else f"{safe[name].replace('.', '_')}~{_digest(name)}" for name in safe}


def _digest(name):
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


# --- CSV and JUnit -------------------------------------------------------------------------------


def grades_csv(results):
    """A row a student and question."""
    header = ["student", "stem", "question", "points", "max", "status", "reason", "sandbox"]
    rows = (
        [r.student, r.stem, r.question, number(r.points), number(r.maximum), r.status, r.reason, _sandbox(r)]
        for r in results
    )
    return _csv(header, rows)


def totals_csv(results):
    """A row a student: points in each exercise and in all, and how many questions have no points yet."""
    stems = sorted({result.stem for result in results})
    rows = []
    for student, own in grouped(results, "student").items():
        per_stem = [earned(result for result in own if result.stem == stem) for stem in stems]
        unmarked = sum(result.points is None for result in own)
        rows.append([student, *map(number, [*per_stem, earned(own), possible(own), unmarked])])
    return _csv(["student", *stems, "total", "max", "without points yet"], rows)


def _csv(header, rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([map(csv_cell, row) for row in [header, *rows]])
    return text.getvalue()


def junit_xml(results, seed):
    """JUnit XML: a test suite a submission, a test case a question."""
    root = ElementTree.Element("testsuites", name=f"byhand grade, seed {seed}")
    for (student, stem), part in grouped(results, "student", "stem").items():
        kinds = Counter(map(_junit_kind, part))
        counts = {"failures": kinds["failure"], "errors": kinds["error"], "skipped": kinds["skipped"]}
        attributes = {"name": f"{student}/{stem}", "tests": len(part), **counts}
        suite = ElementTree.SubElement(root, "testsuite", _attributes(attributes))
        for result in part:
            where = {"classname": f"{stem}.{student}", "name": result.question}
            case = ElementTree.SubElement(suite, "testcase", _attributes(where))
            properties = ElementTree.SubElement(case, "properties")
            values = {"points": number(result.points), "max": number(result.maximum), "status": result.status}
            for name, value in {**values, "sandbox": _sandbox(result)}.items():
                ElementTree.SubElement(properties, "property", name=name, value=value)
            if kind := _junit_kind(result):
                message = {"message": result.reason or status_words(result)}
                ElementTree.SubElement(case, kind, _attributes(message)).text = plain(result.reason)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _junit_kind(result):
    """The element that says what came of a question, or None where it was right."""
    return {"right": None, "manual": "skipped", "ungraded": "error"}.get(result.status, "failure")


def _attributes(values):
    return {name: one_line(str(value)) for name, value in values.items()}


def _sandbox(result):
    return "no" if result.unsafe else "yes"


# --- Gradescope and GitHub Classroom -------------------------------------------------------------


def gradescope(results, seed):
    """One student's results as Gradescope's results.json. What a person has yet to mark is left out."""
    tests = [
        {
            "name": one_line(f"{result.stem}: {result.question}"),
            "score": result.points or 0,
            "max_score": result.maximum,
            "status": "passed" if is_full(result) else "failed",
            "output": plain(result.reason) or status_words(result),
            "output_format": "text",
            "visibility": "visible",
        }
        for result in _counted(results)
    ]
    to_mark = len(results) - len(tests)
    words = [f"Seed {seed}."] + [f"Still to be marked by a person: {to_mark}."] * bool(to_mark)
    words += [UNSAFE] * any(result.unsafe for result in results)
    return {"tests": tests, "output": " ".join(words), "output_format": "text", "visibility": "visible"}


def classroom(results):
    """One student's results as GitHub Classroom's autograding takes them: JSON in base64.

    Classroom knows whole points only: a maximum is rounded up, and what falls short of it down.
    """
    tests = [
        {
            "name": one_line(f"{result.stem}: {result.question}"),
            "status": "error" if result.status == "ungraded" else "pass" if is_full(result) else "fail",
            "score": math.ceil(result.maximum) if is_full(result) else math.floor(result.points or 0),
            "message": for_terminal((f"{UNSAFE}\n" if result.unsafe else "") + (result.reason or status_words(result))),
            "test_code": "",
            "filename": "",
            "line_no": 0,
            "execution_time": "0s",
        }
        for result in _counted(results)
    ]
    statuses = {test["status"] for test in tests}
    status = next((word for word in ("error", "fail") if word in statuses), "pass")
    most = sum(math.ceil(result.maximum) for result in _counted(results))
    text = json.dumps({"version": 1, "status": status, "max_score": most, "tests": tests})
    return base64.b64encode(text.encode()).decode()


def _counted(results):
    return [result for result in results if result.points is not None or result.status != "manual"]


# --- HTML ----------------------------------------------------------------------------------------


@cache
def _templates():
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from jinja2.utils import markupsafe

    def breakable(text):
        return markupsafe.escape(one_line(text)).replace("_", markupsafe.Markup("_<wbr>"))

    folder = FileSystemLoader(Path(__file__).parent / "templates")
    made = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"status_words": status_words, "UNSAFE": UNSAFE, "earned": earned, "possible": possible}
    made.filters |= {"plain": plain, "one_line": one_line, "number": number, "breakable": breakable}
    return made


def feedback_page(results, seed):
    """The page of one student's exercise."""
    return _templates().get_template("feedback.html").render(results=results, first=results[0], seed=seed)


def statistics_page(results, seed):
    """One table and one plot of the class."""
    questions = [_statistics(part) for part in grouped(results, "stem", "question").values()]
    values = {"questions": questions, "plot": plot(questions), "students": len(grouped(results, "student"))}
    return _templates().get_template("statistics.html").render(seed=seed, **values)


def _statistics(results):
    """What the class did in one question; full is the share of full marks, seen the diagnoses with their numbers."""
    marked = [result for result in results if result.points is not None]
    full, seen = sum(map(is_full, marked)), Counter(map(diagnosis, results))
    del seen[None]
    return {
        "stem": results[0].stem,
        "question": results[0].question,
        "maximum": results[0].maximum,
        "mean": earned(marked) / len(marked) if marked else None,
        "full": full / len(marked) if marked else None,
        "seen": seen.most_common(3),
    }


def diagnosis(result):
    """What went wrong, in words that are the same for all who went wrong in this way, or None."""
    if result.status != "wrong":
        return None if result.status in ("right", "manual") else WORDS[result.status]
    passed_over = "First at", "After the call"
    lines = [line for line in result.reason.split("\n") if line.strip() and not line.startswith(passed_over)]
    last = re.sub(
        "^A common mistake (gives these very numbers|fails in this very way): ", "", lines[-1] if lines else "wrong"
    )
    return re.sub(r": (yours|\d).*", "", last).rstrip(".")


def plot(questions):
    """The questions by share of full marks, as SVG that takes the page's colour; the same for the same numbers."""
    from jinja2.utils import markupsafe
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    bars = sorted((q for q in questions if q["full"] is not None), key=lambda q: -q["full"])
    ink, text = "#333333", io.StringIO()
    with rc_context({"svg.hashsalt": "byhand", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.8, 0.8 + 0.5 * len(bars)), layout="constrained")
        axes = figure.subplots()
        axes.barh(range(len(bars)), [100 * q["full"] for q in bars], height=0.35, color="#0072B2")
        for row, q in enumerate(bars):
            label = one_line(f"{q['stem'][:2]} {q['question']}: {q['full']:.0%}", 60)
            axes.text(0, row - 0.28, label, color=ink, fontsize=10, parse_math=False)
        axes.set(xlim=(0, 100), ylim=(len(bars) - 0.6, -0.9), yticks=[])
        axes.set_xlabel("students with full marks, %", color=ink)
        axes.tick_params(colors=ink)
        axes.spines[:].set_visible(False)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return markupsafe.Markup(svg[svg.index("<svg") :].replace(ink, "currentColor"))


# --- small things --------------------------------------------------------------------------------


def earned(results):
    """The points of the results; what has none yet counts 0."""
    return sum(result.points or 0 for result in results)


def possible(results):
    """The most points of the results."""
    return sum(result.maximum for result in results)


def is_full(result):
    """Whether the result has all its points."""
    return result.points is not None and result.points >= result.maximum


def status_words(result):
    """The status of a result in words."""
    return "to be marked by a person" if result.status == "manual" and result.points is None else WORDS[result.status]


def number(value):
    """A number as short as it is read, or nothing for None."""
    return "" if value is None else f"{value:.6g}"


def grouped(results, *fields):
    """{value of the field, or tuple of values: its results}, in order."""
    groups = {}
    for result in results:
        key = tuple(getattr(result, field) for field in fields)
        groups.setdefault(key[0] if len(fields) == 1 else key, []).append(result)
    return groups
