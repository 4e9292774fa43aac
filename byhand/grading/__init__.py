"""Grade untrusted notebooks: a submission can change its score only by returning right numbers.

What decides a score, in the order to read it: `results` (what is found), `submission` (only sources
are taken from a file), `remote` and `byhand.wire` (only numbers cross), `guest` and `no_torch` (inside
the sandbox), `sandbox` (its walls), `judge` (the verdict). The rest decides nothing: `command` and
`plugin` map the judge over a class, `reports` and the templates write down what it found.
"""
