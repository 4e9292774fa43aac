"""What grading finds: one `Result` a student and question. Every report is made from a list of them."""

from dataclasses import dataclass
from typing import Literal

Status = Literal[
    "right",  # the check passed all its cases
    "wrong",  # a comparison failed
    "unanswered",  # the answer is still a stub
    "error",  # the answer raised, or returned what may not cross
    "timeout",  # a call or a cell took too long
    "died",  # the sandbox ended, or used more memory, processes, output or files than it may
    "manual",  # a written answer, to be marked by a person
    "missing",  # no file, or no such cell in it
    "unreadable",  # the file is no notebook that can be graded
    "ungraded",  # the grader itself failed: nothing is said of the answer
]


@dataclass(frozen=True)
class Result:
    """One student's result in one question.

    student, stem, question: who, which exercise, which check (its grade_id). points, maximum: earned
    and possible; a written answer has points None until it is marked. reason: words for the student,
    as plain text of a few lines that nobody has escaped yet. answer: the source of the student's own
    cell, or text. unsafe: graded without a sandbox.
    """

    student: str
    stem: str
    question: str
    maximum: float
    points: float | None
    status: Status
    reason: str = ""
    answer: str = ""
    unsafe: bool = False
