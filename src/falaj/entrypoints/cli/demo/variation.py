"""How a telling may differ from the usual one: the same demo on other data, which must end as well."""

from __future__ import annotations

from pathlib import Path

import msgspec

from falaj.kernel.errors import Invalid

AIRPORTS = ("EWR", "JFK", "LGA")


class Variation(msgspec.Struct, frozen=True):
    """What is varied.

    `airports` are those whose flights are known at all. `shuffle` is the seed of a year without seasons: each
    recorded day gets another date. `better_by` is how much a retraining must beat the champion by.
    """

    airports: tuple[str, ...] = AIRPORTS
    late_minutes: int = 15
    seed: int = 0
    shuffle: int | None = None
    better_by: float = 0.0

    def data_options(self) -> list[str]:
        """What `prepare_data.py` is told."""
        shuffled = [] if self.shuffle is None else ["--shuffle", str(self.shuffle)]
        return ["--airports", *self.airports, *shuffled]

    def edit(self, project: Path) -> None:
        """Set the constants at the top of the project's file."""
        text = project.read_text("utf-8")
        wanted = {"LATE_MINUTES = 15": self.late_minutes, "BETTER_BY = 0.0": self.better_by, "SEED = 0": self.seed}
        for line, value in wanted.items():
            if text.count(f"\n{line}\n") != 1:
                raise Invalid(f"{project.name} has no line {line!r}", hint="reinstall falaj", code="demo_not_installed")
            text = text.replace(f"\n{line}\n", f"\n{line.partition(' ')[0]} = {value}\n")
        project.write_text(text, "utf-8")


def variation(airports: list[str], late_minutes: int, seed: int, shuffle: int | None, better_by: float) -> Variation:
    """From what a person gave. Raises `Invalid`."""
    unknown = sorted({a.upper() for a in airports} - {*AIRPORTS})
    if unknown:
        raise Invalid(
            f"no flights of {', '.join(unknown)} are recorded",
            hint=f"choose among {', '.join(AIRPORTS)}",
            code="bad_demo_option",
        )
    if late_minutes < 1 or seed < 0 or (shuffle is not None and shuffle < 0) or not 0 <= better_by <= 1:
        raise Invalid(
            "minutes start at 1, seeds at 0, and a difference of ROC AUC is 0 to 1",
            hint="`falaj demo --help` shows the defaults",
            code="bad_demo_option",
        )
    chosen = tuple(a for a in AIRPORTS if a in {given.upper() for given in airports}) or AIRPORTS
    return Variation(chosen, late_minutes, seed, shuffle, better_by)
