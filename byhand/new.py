"""Scaffold a unit: its four files from the anatomy in CONTRIBUTING.md, running and passing.

What is to be written stands between « and »; CI refuses these signs, so no placeholder lands.
"""

import re

import nbformat

from byhand.notebooks import ROOT, NotebookError, canonical, name_of, release_file, run, write

STEM = re.compile(r"[0-9]{2}(-[a-z0-9]+)+")

LECTURE = [
    (
        "md",
        """
# NUMBER · TITLE

**The question.** «One sentence that the reader wants answered.»

*Needs:* «what was taught before, as links». *Gives:* «what the reader can do afterwards». *Time:* «minutes». *Beside it:* [exercise](../exercises/STEM.ipynb), [mathnote](../mathnotes/STEM.md).

**Recall** two things first.

<details><summary>1. «A question from an earlier part.»</summary>

«Its answer.»
</details>

<details><summary>2. «A question from the unit before.»</summary>

«Its answer.»
</details>
""",
    ),
    (
        "code",
        """
import numpy as np
import torch

from byhand.check import same
from byhand.draw import matrices, plt
from byhand.jacobian import jacobian, structure

rng = np.random.default_rng(NUMBER)
np.set_printoptions(precision=4, suppress=True)
""",
    ),
    (
        "md",
        """
## Forward

«The formula, and why anyone wants it.»

$$y = 2x \\tag{1}$$
""",
    ),
    (
        "code rule",
        '''
def NAME(x):
    """«What it computes.» x: any shape; y has the same."""
    return 2.0 * x
''',
    ),
    (
        "md",
        """
## By hand first

«The source's own example, to be computed on paper.»
""",
    ),
    (
        "code",
        """
x = np.array([1.0, -3.0])
y = NAME(x)

same(y=(y, np.array([2.0, -6.0])))
print(x, "->", y)
""",
    ),
    (
        "md",
        """
## Derive

«One index-level step a line, each saying why.»

## Predict

<details><summary>«Which entries will be zero? Commit before you run on.»</summary>

«The answer.»
</details>
""",
    ),
    (
        "code rule",
        '''
def NAME_jacobian(x):
    """dy_dx (x.size, x.size), from the formula."""
    return 2.0 * np.eye(x.size)
''',
    ),
    (
        "code",
        """
dy_dx = NAME_jacobian(x)

assert structure(dy_dx).diagonal
matrices(dy_dx=dy_dx)
plt.show()
""",
        "«What the picture shows, for somebody who cannot see it.»",
    ),
    (
        "md",
        """
## The rule: watch the matrix vanish

«Multiply by the Jacobian, and say what remains.»
""",
    ),
    (
        "code rule",
        '''
def NAME_vjp(dy, y, x):
    """dx, the shape of x, from dy and y of the same shape."""
    return 2.0 * dy
''',
    ),
    (
        "md",
        """
## Three witnesses

«What the check plants: rectangular shapes, a batch, zeros, ties; the upstream gradient is random.»
""",
    ),
    (
        "code",
        """
x, dy = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
y = NAME(x)
dx = NAME_vjp(dy, y, x)
dy_dx = NAME_jacobian(x)

xt = torch.tensor(x, requires_grad=True)
yt = 2.0 * xt
yt.backward(torch.tensor(dy))
same(dy_dx=(dy_dx, jacobian(lambda xt: 2.0 * xt, x)))
same(dx=(dx.ravel(), dy_dx.T @ dy.ravel()))
same(y=(y, yt), dx=(dx, xt.grad))
""",
    ),
    (
        "md",
        """
## Pitfall

«The mistake that people make, run for real, and the check that catches it.»

## Remember

> **«The sentence to remember.»**
> `dx = 2 dy`

- *Time:* «…».
- *Kept from the forward pass:* «…».
- *Memory:* «…».

**Next:** the [exercise](../exercises/STEM.ipynb) «varies what».
""",
    ),
]

SOLUTION = [
    (
        "md",
        """
# NUMBER · Exercise: «the variant»

«What the variant is, and what the reader will have found at the end.»

*Time:* «minutes». *Points:* 2. Write your answers where a cell says `...` or `raise NotImplementedError`, then run the check below it. `pytest exercises/STEM.ipynb` checks them all.
""",
    ),
    (
        "md solution",
        """
> This is the solution: answers, why they are right, and the mistakes that each check catches. The exercise itself is [here](../exercises/STEM.ipynb).
""",
    ),
    (
        "code",
        """
import numpy as np
import torch

from byhand.check import check, mistake, same
""",
    ),
    (
        "md",
        """
## Part 1: by pencil (1 point)

«The example.»
""",
    ),
    (
        "code",
        """
### BEGIN SOLUTION
dx_by_pencil = np.array([3.0, -3.0])  # (2,)
### END SOLUTION
""",
    ),
    (
        "code",
        """
@check(points=1)
def NAME_by_pencil_is_right(rng):
    xt = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (3.0 * xt).backward(torch.tensor([1.0, -1.0], dtype=torch.float64))
    same(dx_by_pencil=(dx_by_pencil, xt.grad))
""",
    ),
    ("md solution", "\n«Why.»\n"),
    (
        "code mistake",
        """
mistake(
    NAME_by_pencil_is_right,
    says="«what is wrong»",
    dx_by_pencil=np.array([3.0, 3.0]),
)
""",
    ),
    (
        "md",
        """
## Part 2: the rule (1 point)

«The question.»
""",
    ),
    (
        "code",
        '''
def NAME_variant_vjp(dy, y, x):
    """dx, the shape of x."""
    ### BEGIN SOLUTION
    return 3.0 * dy
    ### END SOLUTION
''',
    ),
    (
        "code",
        """
@check(points=1)
def NAME_variant_vjp_agrees_with_autograd(rng):
    x, dy = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    xt = torch.tensor(x, requires_grad=True)
    yt = 3.0 * xt
    yt.backward(torch.tensor(dy))
    same(dx=(NAME_variant_vjp(dy, yt.detach().numpy(), x), xt.grad))
""",
    ),
    ("md solution", "\n«Why.»\n"),
    (
        "code mistake",
        """
def ignores_the_upstream(dy, y, x):
    return 3.0 * np.ones_like(x)


mistake(
    NAME_variant_vjp_agrees_with_autograd,
    says="«what is wrong»",
    NAME_variant_vjp=ignores_the_upstream,
)
""",
    ),
]

MATHNOTE = """# NUMBER · «The theorem behind the rule»

[The lecture](../lectures/STEM.ipynb) «shows what». Here is why.

**Theorem.** «Statement.»

**Proof.** «Proof.» ∎
"""


def scaffold(stem, root=ROOT):
    """Write and run the files of a new unit; returns their paths.

    stem: two digits and a name, as 23-power. A project (x9) has a solution and an exercise only.
    Raises NotebookError for another form of stem, and where one of the files exists already.
    """
    if not STEM.fullmatch(stem):
        raise NotebookError(f"{stem!r} is no stem: two digits and lower-case words, as in 23-power.")
    is_project = stem[1] == "9"
    lecture, solution, exercise = (root / folder / f"{stem}.ipynb" for folder in ("lectures", "solutions", "exercises"))
    mathnote = root / "mathnotes" / f"{stem}.md"
    paths = [solution, exercise] if is_project else [lecture, solution, exercise, mathnote]
    present = [name_of(path) for path in paths if path.exists()]
    if present:
        raise NotebookError(f"{', '.join(present)}: exists already. Nothing was written.")
    for path, cells in ((lecture, LECTURE), (solution, SOLUTION)):
        if path in paths:
            write(path, canonical(_notebook(stem, cells), stem))
            run(path)
    release_file(solution, exercise)
    if mathnote in paths:
        mathnote.parent.mkdir(exist_ok=True)
        mathnote.write_text(_filled(MATHNOTE, stem), encoding="utf-8")
    return paths


def _notebook(stem, cells):
    made = nbformat.v4.new_notebook()
    for n, (kind, source, *alt) in enumerate(cells, 1):
        kind, *tags = kind.split()
        new = nbformat.v4.new_markdown_cell if kind == "md" else nbformat.v4.new_code_cell
        cell = new(_filled(source.strip("\n"), stem), id=f"{stem}-{n}")
        cell.metadata = {"tags": tags} | ({"mystnb": {"image": {"alt": alt[0]}}} if alt else {})
        made.cells.append(cell)
    return made


def _filled(text, stem):
    number, _, words = stem.partition("-")
    values = {"NUMBER": number, "TITLE": words.replace("-", " ").capitalize()}
    values |= {"STEM": stem, "NAME": re.sub(r"\W", "_", words)}
    return re.sub("NUMBER|TITLE|STEM|NAME", lambda found: values[found[0]], text)
