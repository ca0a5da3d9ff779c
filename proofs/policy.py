"""The policy answers as the table says, and any change of it is noticed.

    python proofs/policy.py [--random 50000] [--mutants 0] [--seed 1]

Asks every cell of tests/governance/policy/cases.csv (actions, states of their resource, roles), then random questions:
principals of several roles or none, tokens with a scope, names that look like rules. Their answers follow from the
table. Then the policy's files are changed, one place at a time: each line and each statement deleted, each role another
one, permit and forbid, when and unless, "and" and "or" exchanged. A change must be refused by validation or turn some
cell round. `--mutants N` tries only N of the changes, spread over all.

Exits 1 when one answer is another than the table's, or when one change goes unnoticed.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from falaj.bootstrap.control_plane import actions  # noqa: E402  # the paths come first
from falaj.governance.identity.model import ROLES  # noqa: E402
from falaj.governance.policy.decide import EnvironmentAuthoriser  # noqa: E402
from falaj.governance.policy.schema import GROUPS  # noqa: E402
from falaj.kernel.access import SYSTEM, Action, Principal  # noqa: E402
from tests.governance.policy import oracle as table  # noqa: E402

_NAMES = ("bob", "Bob", "bob ", "b\u00f6b", "falaj", "viewer", '"; permit (principal, action, resource);', "x" * 300)
_SWAPS = (
    ("permit (", "forbid ("),
    ("unless {", "when {"),
    (" && ", " || "),
    (" != ", " == "),
    (".contains(", ".containsAny("),
)
Mutant = tuple[str, str, str, str]  # what was done, the file, its text, the rule in which


def random_cases(oracle: table.Oracle, declared: tuple[Action, ...], count: int, seed: int) -> Iterator[str]:
    """In words, the random questions that are answered otherwise than the table says."""
    chance = random.Random(seed)
    policy = EnvironmentAuthoriser(declared)
    names = [a.name for a in declared]
    for _ in range(count):
        action = chance.choice(declared)
        state = chance.choice(list(table.states(action)))
        who, other = chance.sample(_NAMES, 2)
        roles = tuple(chance.sample(ROLES, chance.choice((0, 1, 1, 2, 2, 3, 7))))
        scope = tuple(chance.choices([*names, *GROUPS], k=chance.randrange(9))) if chance.random() < 0.3 else None
        principal, asked = Principal(who, chance.choice(("person", "service")), roles, scope), roles
        if chance.random() < 0.1:
            principal, asked, scope = SYSTEM, (table.PLATFORM,), None
            other = "somebody-else"
        question = table.question(principal, action, state, chance.choice(_NAMES), other)
        expected, decision = oracle.expected(action, state, asked, scope), policy.decide(question)
        if not expected.agrees(decision):
            yield f"{question}: the table says {expected}, the policy {decision}"


def mutants() -> Iterator[Mutant]:
    """Every change of one place."""
    for name, text in table.Texts().files.items():
        for rule, part in table.parts(text):
            at = text.index(part)
            for what, changed in _changes(part):
                yield f"{name}, {rule}: {what}", name, text[:at] + changed + text[at + len(part) :], rule


def _changes(part: str) -> Iterator[tuple[str, str]]:
    yield "deleted", ""
    lines = part.splitlines(keepends=True)
    for n, line in enumerate(lines):
        yield f"line {n + 1} deleted", "".join(lines[:n] + lines[n + 1 :])
        if line.rstrip().endswith(";"):  # a file that cannot be parsed any more proves little
            yield f"line {n + 1} deleted but for its end", "".join([*lines[:n], ";\n", *lines[n + 1 :]])
    for one, two in _SWAPS:
        for old, new in ((one, two), (two, one)):
            for found in re.finditer(re.escape(old), part):
                yield f"{old.strip()} to {new.strip()}", part[: found.start()] + new + part[found.end() :]
    for found in re.finditer(r'Role::"([a-z-]+)"', part):
        other = ROLES[(ROLES.index(found[1]) + 1) % len(ROLES)] if found[1] in ROLES else ROLES[0]
        yield f"{found[1]} to {other}", part[: found.start(1)] + other + part[found.end(1) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=50_000)
    parser.add_argument("--mutants", type=int, default=0, help="0: all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started, declared = time.monotonic(), actions()
    oracle = table.Oracle(table.TABLE.read_text("utf-8"))
    cells = list(table.cells(oracle, declared))
    wrong = [str(c) for c in table.differing(cells, EnvironmentAuthoriser(declared))]
    wrong += random_cases(oracle, declared, options.random, options.seed)
    tried = list(mutants())
    tried = tried[:: max(1, len(tried) // options.mutants)] if options.mutants else tried
    unnoticed = [what for what, file, text, rule in tried if not table.noticed({file: text}, rule, cells, declared)]
    for line in [*wrong, *(f"unnoticed: {u}" for u in unnoticed)][:20]:
        print(line, file=sys.stderr)
    print(
        f"policy: {len(cells):,} cells and {options.random:,} random cases, {len(wrong)} answered otherwise; "
        f"{len(tried) - len(unnoticed)} of {len(tried)} changes of the policy noticed ({time.monotonic() - started:.0f} s)"
    )
    sys.exit(1 if wrong or unnoticed else 0)


if __name__ == "__main__":
    main()
