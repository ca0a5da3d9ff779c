"""The audit log's name and its witnesses, from the settings; and what becomes of a refusal by one of them."""

from __future__ import annotations

from pathlib import Path

from falaj.governance.audit.model import WitnessStanding
from falaj.governance.audit.quorum import parse_policy
from falaj.governance.audit.verify import VKEY
from falaj.governance.audit.witnessing import Witnesses
from falaj.kernel.errors import Conflict, Invalid
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.model import EVERY_MODEL, WITNESS

ORIGIN = "falaj.local/audit"
"""The name of a log that was given none."""


def origin_of(audit: Path, asked: str = "") -> str:
    """The name of the log in a home's audit folder; of a new one the one asked for.

    Raises `Conflict` when another name is asked for than the log has: it would be another log.
    """
    vkey = audit / VKEY
    lying = vkey.read_text("utf-8", "replace").partition("+")[0] if vkey.exists() else ""
    if lying and asked and asked != lying:
        raise Conflict(
            f"the audit log of this home is {lying}, not {asked}",
            hint="unset FALAJ_AUDIT_ORIGIN: a log keeps its name; only a new home takes another",
            code="log_has_another_name",
        )
    return lying or asked or ORIGIN


def witnesses_of(file: str) -> Witnesses | None:
    """The witnesses that a policy file names; None without a file. Raises `Invalid` for one that cannot be read."""
    if not file:
        return None
    try:
        data = Path(file).read_bytes()
    except OSError as e:
        raise Invalid(
            f"the witness policy {file} cannot be read: {e.strerror or e}",
            hint="correct FALAJ_WITNESSES (witnesses in falaj.toml), or unset it to ask no witness",
            code="bad_setting",
        ) from e
    return Witnesses(parse_policy(data))


def tell_refusals(incidents: IncidentService, refusing: tuple[WitnessStanding, ...]) -> None:
    """An incident while a witness refuses this log's history; it ends when every witness has cosigned it again."""
    if refusing:
        reason = "; ".join(f"the witness {w.name} refuses the audit log: {w.why}" for w in refusing)
        incidents.open(EVERY_MODEL, WITNESS, "", reason)
    else:
        incidents.settle(EVERY_MODEL, WITNESS)
