"""Compare a hand gradient with a reference, strictly, and say what is wrong.

`same` compares, `check` makes a graded check of a function that calls `same`, and `mistake` shows
that a check catches a wrong answer. torch is never imported here.
"""

import itertools
import json
import sys
import textwrap
import traceback
import types
from dis import get_instructions
from fractions import Fraction
from pathlib import Path

import numpy as np

from byhand.wire import Home, Mismatch, NotAnswered

__all__ = ["Check", "Mismatch", "NotAnswered", "check", "mistake", "same"]

SEEDS = range(5)
SOLUTIONS = Path(__file__).resolve().parents[1] / "solutions"


def same(*, rtol=1e-7, atol=1e-9, zero=False, **pairs):
    """Assert that each pair ``name=(mine, reference)`` agrees, entry by entry.

    mine, reference: NumPy arrays, numbers or torch tensors, of equal shape: nothing is broadcast.
    An entry agrees when ``|mine - reference| <= atol + rtol * |reference|``; nan agrees with nan,
    inf with inf of its sign. zero: allow a reference that is zero everywhere.

    Raises Mismatch when mine is wrong: another shape, another kind (bool, complex or object where
    floats are due; integers are accepted), an array subclass, nan or inf where the reference has
    none, or a value off by more than the tolerance. The text names the first entry that differs
    and what can be seen from the two arrays.
    Raises ValueError for a comparison that zeros would pass, TypeError for a misuse of `same`.
    """
    if not pairs:
        raise TypeError("same() has nothing to compare: write same(dx=(mine, reference)).")
    for name, pair in pairs.items():
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise TypeError(f"same() needs {name}=(mine, reference), a pair.")
        _compare(name, *pair, _Tolerance(rtol, atol), zero)
    Home.last_call = ""  # it was right: what fails later is not about it


class _Tolerance:
    def __init__(self, rtol, atol):
        self.rtol, self.atol = rtol, atol

    def agree(self, mine, reference):
        """Which entries agree; both arrays have the same shape."""
        return np.isclose(mine, reference, rtol=self.rtol, atol=self.atol, equal_nan=True)

    def equal(self, mine, reference):
        return mine.shape == reference.shape and bool(self.agree(mine, reference).all())


def _compare(name, mine, reference, tolerance, zero):
    reference = _reference_array(name, reference)
    mine = _answer_array(name, mine, reference.dtype.kind)
    if not zero and tolerance.equal(np.zeros(reference.shape), reference):
        raise ValueError(
            f"same({name}=...) would accept zeros: the reference is zero everywhere, or empty.\n"
            "Choose another example, or say zero=True where zero is the point."
        )
    if mine.shape != reference.shape:
        words = f"{name} has shape {mine.shape}, the reference {reference.shape}."
        raise Mismatch(_lines(words, _seen_in_shapes(mine, reference, tolerance)), name, mine)
    wrong = ~np.isfinite(mine) & np.isfinite(reference)
    what = "are nan or inf where the reference is finite" if wrong.any() else "differ from the reference"
    if not wrong.any():
        wrong = ~tolerance.agree(mine, reference)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        words = _difference(name, mine, reference, wrong, where, what)
        raise Mismatch(_lines(words, _seen(mine, reference, tolerance), _precision(mine)), name, mine, where)


def _lines(*parts):
    return "\n".join(part for part in parts if part)


def _as_array(value):
    """value as a plain NumPy array, or None if it is not an array, a number or a tensor."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if type(value) is np.ndarray or isinstance(value, (bool, int, float, complex, np.generic)):
        return np.asarray(value)
    return None


def _reference_array(name, value):
    array = _as_array(value)
    if array is None or array.dtype.kind not in "fiub":
        raise TypeError(f"the reference of {name} is a {type(value).__name__}: give numbers, an array or a tensor.")
    return array


def _answer_array(name, value, due):
    array = _as_array(value)
    if value is None:
        raise Mismatch(f"{name} is None. Does the function return it?", name)
    if isinstance(value, np.ndarray) and array is None:
        raise Mismatch(
            f"{name} is a {type(value).__name__}, a subclass of the NumPy array. Use a plain array.",
            name,
        )
    if array is None:
        raise Mismatch(f"{name} is a {type(value).__name__}. A number or a NumPy array is expected.", name)
    if due == "b" and array.dtype.kind != "b":
        raise Mismatch(f"{name} holds {array.dtype}, booleans are expected.", name, array)
    if due != "b" and array.dtype.kind not in "fiu":
        raise Mismatch(
            f"{name} holds {array.dtype}, {'floats' if due == 'f' else 'numbers'} are expected.",
            name,
            array,
        )
    return array


def _difference(name, mine, reference, wrong, where, what):
    a, b = _two_numbers(mine[where], reference[where])
    if mine.ndim == 0:
        return f"{name} is wrong: yours {a}, reference {b}."
    return (
        f"{name} is wrong: {wrong.sum()} of {mine.size} entries {what}.\n"
        f"First at {list(where)}: yours {a}, reference {b}."
    )


def _two_numbers(a, b):
    """Both numbers with as few digits as tell them apart."""
    if isinstance(a, np.bool_):
        return str(a), str(b)
    for digits in (6, 12, 17):
        texts = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def _precision(mine):
    if mine.dtype.kind == "f" and mine.dtype.itemsize < 8:
        return f"Yours is {mine.dtype}; the course computes in float64."
    return None


def _seen_in_shapes(mine, reference, tolerance):
    """What explains two different shapes, as a sentence, or None."""
    if not reference.any():  # any sum of it would seem to fit
        return None
    if tolerance.equal(mine.T, reference):
        return "It is the reference transposed."
    if tolerance.equal(mine.ravel(), reference.ravel()):
        return "The numbers are right, in C order: only the shape is wrong."
    for axes in _axes(mine.ndim):
        if any(tolerance.equal(mine.sum(axes, keepdims=keep), reference) for keep in (False, True)):
            return f"A sum over {_axis_words(axes)} is missing."
    for axes in _axes(reference.ndim):
        if any(tolerance.equal(mine, np.asarray(reference.sum(axes, keepdims=keep))) for keep in (False, True)):
            return f"There is a sum over {_axis_words(axes)} too many."
    if _swapped_order(mine, reference, tolerance):
        return "The numbers are right, but in Fortran order."
    return None


def _swapped_order(mine, reference, tolerance):
    """Whether one of the two was read or folded column by column."""
    pairs = ("C", "F"), ("F", "C")
    return any(tolerance.equal(mine.ravel(order=a), reference.ravel(order=b)) for a, b in pairs)


def _axes(ndim):
    return itertools.chain.from_iterable(itertools.combinations(range(ndim), n) for n in range(1, ndim + 1))


def _axis_words(axes):
    return f"axis {axes[0]}" if len(axes) == 1 else f"the axes {axes}"


def _seen(mine, reference, tolerance):
    """What explains two arrays of the same shape that differ, as a sentence, or None."""
    if not reference.any():
        return None
    if mine.dtype.kind == "b" or not (np.isfinite(mine).all() and np.isfinite(reference).all()):
        return None
    mine = mine.astype(float)
    if tolerance.equal(mine, np.zeros(mine.shape)):
        return "Yours is zero everywhere."
    if tolerance.equal(mine.T, reference):
        return "It is the reference transposed."
    if tolerance.equal(-mine, reference):
        return "The sign is wrong everywhere."
    if _swapped_order(mine, reference, tolerance):
        return "The numbers are right, but in Fortran order."
    factor = _constant_factor(mine, reference, tolerance)
    if factor:
        return f"Yours is {factor} times the reference, everywhere."
    for axes in _axes(mine.ndim):
        if tolerance.equal(mine, np.broadcast_to(reference.sum(axes, keepdims=True), mine.shape)):
            return f"There is a sum over {_axis_words(axes)} too many."
        if tolerance.equal(np.broadcast_to(mine.sum(axes, keepdims=True), mine.shape), reference):
            return f"A sum over {_axis_words(axes)} is missing."
    if mine.ndim == 2 and mine.shape[0] == mine.shape[1]:
        wrong = ~tolerance.agree(mine, reference)
        if wrong.sum() > 1 and not wrong[~np.eye(*mine.shape, dtype=bool)].any():
            return "Only the diagonal is wrong."
    return None


def _constant_factor(mine, reference, tolerance):
    """The one number that mine is a multiple by, in words, where two entries or more agree on it."""
    if np.count_nonzero(reference) < 2:
        return None
    largest = np.unravel_index(np.abs(reference).argmax(), reference.shape)
    factor = float(mine[largest] / reference[largest])
    if not tolerance.equal(mine, factor * reference):
        return None
    simple = Fraction(factor).limit_denominator(20)
    is_simple = abs(float(simple) - factor) <= 1e-6 * abs(factor)
    return str(simple) if is_simple else f"{factor:.6g}"


def check(function=None, *, points=1, diagnose=True, values=True, inplace=False):
    """Make a graded check of a function of one random generator, and run it at once.

    The function computes a reference, calls answers of the notebook and compares with `same`. Its
    answers are reached through proxies, so only plain data crosses (see `byhand.wire`). It runs on
    several fixed seeds and prints one line.

    points: what it is worth. diagnose=False: a failure says only that and where. values=False: it shows
    no numbers, where the reference's would be the answer, as for codes. inplace=True: the answers may
    change their inputs in place, and the check sees the change.

    Raises NotAnswered when an answer it uses is still a stub, Mismatch when an answer is wrong.
    """

    def decorate(function):
        made = Check(function, points, diagnose, values, inplace)
        made.report()
        return made

    return decorate if function is None else decorate(function)


class Check:
    """A check, as `check` makes it: a name, its points, and the answers that it uses."""

    seeds = SEEDS
    tells_calls = True  # not where a check has hidden tests, whose inputs the call would show

    def __init__(self, function, points=1, diagnose=True, values=True, inplace=False):
        self.function, self.points = function, points
        self.diagnose, self.values, self.inplace = diagnose, values, inplace
        self.name = function.__name__
        self.uses = _globals_used(function.__code__)

    def __repr__(self):
        return f"<check {self.name}, {_points(self.points)}>"

    def run(self, seed, **replaced):
        """Run once on the generator of this seed, with some answers replaced.

        Raises NotAnswered, Mismatch, or whatever an answer raises.
        """
        self._run(seed, replaced)

    def _run(self, seed, replaced, **given):
        """given: names that the check sees as they are."""
        names = {**self.function.__globals__, **replaced}
        home = Home(self.function.__module__, self.inplace)
        names |= {name: home.guard(name, names[name]) for name in self.uses if name in names}
        function = types.FunctionType(self.function.__code__, names | given, self.name)
        Home.last_call = ""
        try:
            function(np.random.default_rng(seed))
        except Exception as error:
            error.case = Home.last_call
            raise

    def outcomes(self, **replaced):
        """One outcome a seed: the Mismatch, or None where the answers are right."""
        return [self._outcome(seed, replaced) for seed in self.seeds]

    def _outcome(self, seed, replaced):
        try:
            return self.run(seed, **replaced)
        except Mismatch as failure:
            return failure

    def report(self):
        """Run on every seed and print one line. Raises what `run` raises, with a diagnosis."""
        try:
            outcomes = self.outcomes()
        except NotAnswered:
            raise
        except Exception as error:
            if self.diagnose and _called(error):
                error.add_note(_called(error))
            if isinstance(error, (TypeError, ValueError)) and _raised_by(error) is self.function.__code__:
                error.add_note(
                    "The check cannot use what came back. Is it what the docstring says, and as many values?"
                )
            raise
        failure = next(filter(None, outcomes), None)
        if failure is None:
            print(f"{self.name}: right ({_points(self.points)})")
            return
        raise Mismatch(self._words(failure), failure.name, failure.mine, failure.where) from None

    def _words(self, failure):
        where = f", first at {list(failure.where)}" if failure.where else ""
        if not self.diagnose:
            return f"{self.name}: wrong in {failure.name}{where}."
        says = self._recognised()
        how = "gives these very numbers" if failure.mine is not None else "fails in this very way"
        diagnosis = f"A common mistake {how}: {says}." if says else None
        called = _called(failure) if self.tells_calls else ""
        words = str(failure) if self.values or failure.where is None else f"{failure.name} is wrong{where}."
        return _lines(f"{self.name}: wrong", words, called, diagnosis)

    def _recognised(self):
        """The words of the named mistake that does in every comparison just what the answers do, or None."""
        mine, given = self._traces(), self._given_to_mistakes()
        for says, wrong in _named_mistakes(self, given):
            if _alike(mine, self._traces(**given | wrong)) and self._is_behind(wrong, mine, given):
                return says
        return None

    def _given_to_mistakes(self):
        """What a named mistake sees in place of the notebook's own definitions."""
        return {}

    def _is_behind(self, names, traces, given):
        """Whether these answers make the first wrong comparison. If nonsense in their place leaves it, another does."""
        nonsense = {name: _nonsense(self.function.__globals__.get(name)) for name in names}
        for trace, other in zip(traces, self._traces(**given | nonsense), strict=True):
            wrong = next((place for place, (_, _, is_right) in enumerate(trace) if not is_right), None)
            if wrong is not None:
                return not _alike(trace[: wrong + 1], other[: wrong + 1])
        return False

    def _traces(self, **replaced):
        """What each seed's comparisons see, though some are wrong: lists of (name, value, is it right)."""
        return [self._trace(seed, replaced) for seed in self.seeds]

    def _trace(self, seed, replaced):
        trace = []

        def same_on_record(**arguments):
            options = {key: arguments.pop(key) for key in ("rtol", "atol", "zero") if key in arguments}
            for name, pair in arguments.items():
                value = _as_array(pair[0])
                try:
                    same(**options, **{name: pair})
                    trace.append((name, np.array(value), True))
                except Mismatch as failure:
                    trace.append((name, str(failure) if value is None else np.array(value), False))

        try:
            self._run(seed, replaced, same=same_on_record)
        except Exception as error:  # a mistake may also need helpers that this notebook does not have
            trace.append(("", f"{type(error).__name__}: {error}", False))
        return trace


def _called(error):
    """The call that a check made last before it failed, as a sentence, or ""."""
    case = getattr(error, "case", "")
    return f"After the call {case}." if case else ""


def _raised_by(error):
    """The code whose line raised an exception."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code


def _nonsense(answer):
    """What no answer is, in place of a value or a function."""
    nothing = np.empty((1, 0, 3))
    return (lambda *args, **kwargs: nothing) if callable(answer) else nothing


def _points(points):
    return f"{points} point" if points == 1 else f"{points} points"


def _globals_used(code):
    """The global names that a code object reads, those inside its lambdas and loops included."""
    names = {step.argval for step in get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return sorted(names.union(*map(_globals_used, inner)))


def _alike(a, b):
    """Whether traces agree: the same comparisons, with the same numbers."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        is_number = a.dtype.kind in "fiub" and b.dtype.kind in "fiub"
        return a.shape == b.shape and is_number and np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_alike, a, b))
    return type(a) is type(b) and a == b


def _named_mistakes(made, given):
    """(says, wrong answers) of each mistake that the solutions name for this check. given: names that they see."""
    found = []

    def collect(for_check, *, says, raises=None, **wrong):
        if for_check is made and raises is None:
            found.append((says, wrong))

    namespace = {**made.function.__globals__, **given, made.name: made, "mistake": collect}
    for source in _mistake_cells(made.name):
        try:
            exec(source, namespace)
        except Exception:  # this cell is about a check that the notebook has not reached
            continue
    return found


def _mistake_cells(check_name):
    """The cells tagged `mistake` of the solution that holds this check; none without solutions."""
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        if f"def {check_name}(" in text:
            cells = json.loads(text)["cells"]
            tagged = (cell for cell in cells if "mistake" in cell["metadata"].get("tags", []))
            return ["".join(cell["source"]) for cell in tagged]
    return []


def mistake(check, *, says, raises=None, **wrong):
    """Show that a check catches a wrong answer that people really give.

    check: the check. says: what is wrong, in words that would help whoever gave this answer.
    wrong: the wrong answers by the names they replace. raises: the exception that this mistake
    ends in, where that is not a failure of `same`.

    Prints `says` and the check's words. Raises AssertionError when the check passes, and whatever
    else the wrong answer raises.
    """
    if not wrong or not says:
        raise TypeError("mistake() needs says='what is wrong' and a wrong answer, NAME=function.")
    strangers = sorted(set(wrong) - set(check.uses))
    if strangers:
        raise TypeError(f"{check.name} does not use {', '.join(strangers)}; it uses {', '.join(check.uses)}.")
    try:
        failure = next(filter(None, check.outcomes(**wrong)), None)
        caught = failure and str(failure)
    except Exception as error:
        if raises is None or not isinstance(error, raises):
            raise
        caught = f"{type(error).__name__}: {error}"
    else:
        if raises is not None:
            raise AssertionError(f"{check.name} does not end in {raises.__name__}: {says}.")
    if not caught:
        raise AssertionError(f"{check.name} passes this wrong answer: {says}.")
    print(f"caught: {says}")
    print(textwrap.indent(caught, "  "))
