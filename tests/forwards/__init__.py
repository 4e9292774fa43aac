"""torch's forward of every rule, and inputs to try it on. No gradient formula stands here.

`RULES[stem][name]` is a `Rule`. A lecture's rule cells may define the names listed there, each with
`_vjp` and `_jacobian` (or `_jacobians`), and nothing else: `tests/test_rules.py` checks all of them.
"""

from forwards import part1, part2, part3, part4, part5, part6, part7

PARTS = part1, part2, part3, part4, part5, part6, part7
RULES = {stem: rules for part in PARTS for stem, rules in part.RULES.items()}
