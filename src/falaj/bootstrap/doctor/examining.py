"""All checks, one after another. One that cannot be done is a finding, and never the end of the others."""

from __future__ import annotations

from collections.abc import Callable

from falaj.bootstrap.doctor import folder, machine, planes, stores, truth
from falaj.bootstrap.doctor.model import PROBLEM, Check, Finding, Patient, Report
from falaj.kernel.settings import Settings

CHECKS: tuple[Check, ...] = (
    folder.rights, folder.lock, folder.twin, folder.disk, folder.ports, folder.processes, folder.left_over,
    folder.successors,
    truth.databases, truth.schema, truth.keys, truth.audit_log, truth.blobs,
    stores.lake, stores.quarantine, stores.online, stores.journal,
    planes.bundles, planes.flows, planes.clock, planes.backups, planes.tokens,
    machine.python, machine.libraries,
)  # fmt: skip


def examine(settings: Settings, *, deep: bool = False, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Look at everything; nothing of the home is changed, and it need not start."""
    if not (settings.home / "falaj.db").exists() and not (settings.home / "keys").exists():
        told = f"there is no home in {settings.home}"
        hint = "name it: --home FOLDER; falaj apply makes a new one"
        return Report(str(settings.home), (Finding("home", "no_home", PROBLEM, told, hint),))
    patient = Patient(settings, deep=deep)
    found: list[Finding] = []
    for check in CHECKS:
        tell(check.__name__.replace("_", " "))
        try:
            found += check(patient)
        except Exception as e:  # in a damaged home a check may meet anything; the others still have something to say
            name, why = check.__name__.replace("_", "-"), f"{type(e).__name__}: {e}"
            told = f"this could not be looked at: {why[:300]}"
            found.append(
                Finding(name, "check_failed", PROBLEM, told, "mend what the other checks say, then look again")
            )
    return Report(str(settings.home), tuple(found))
