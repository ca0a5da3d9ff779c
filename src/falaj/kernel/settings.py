"""One settings object: `FALAJ_*` in the environment, then `falaj.toml`, then the defaults below.

Reading freezes: the object is immutable and is handed on, never looked up again.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.errors import Invalid

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PERIODS = ("none", "year", "month")
LEVELS = ("debug", "info", "warning", "error")
_OF_THE_DATA_PLANE = {"FALAJ_PLANE_DIR", "FALAJ_PLANE_BLOBS", "FALAJ_PLANE_ONLINE"}  # where it stands without a home
_OF_THE_PROJECT = ("witnesses", "tls", "oidc_client_secret_file")  # files, relative to it


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting, with its default. `FALAJ_HOME` sets `home`, and so on."""

    home: Path = Path(".falaj")
    """Where all state lives."""
    project: Path = Path()
    """The project's folder: its code and, below it, the files that its sources name."""
    server: str = ""
    """Address of a running control plane; empty means the one of this home, or none."""
    token: str = ""
    """The token to act with; empty means the home's own for `principal`."""
    principal: str = ""
    """Who acts, when the token comes from the home; empty means whoever signed in with `falaj login`, else owner."""
    host: str = "127.0.0.1"
    """Where both planes listen. Anything but loopback is TLS 1.3 with certificates on both sides: set `tls`."""
    port: int = 0
    """The control plane's port; 0 takes a free one, kept for the home."""
    plane_port: int = 0
    """The data plane's port; 0 takes a free one, kept for the home."""
    tls: str = ""
    """A folder with certificates (docs/how-to/serve-beyond-loopback.md), relative to the project; empty means none."""
    trust_domain: str = "falaj.local"
    """The SPIFFE trust domain that identities in certificates must be of."""
    plane_workers: int = msgspec.field(default=1)
    """Data plane processes; one a core serves most."""
    region: str = ""
    """Where this home keeps and works on data, as sources name it; data of another region is refused, and with no region
    here data of any."""
    environment: str = "production"
    """The environment that `falaj predict` asks when it is not told: staging or production."""
    approvals: int = 1
    """How many people other than the author must approve a version for production."""
    staging_approvals: int = 0
    """How many people other than the author must approve a version for staging."""
    approval_days: int = 30
    """How long an approval counts that nothing rests on yet, in days; stricter risk tiers have less."""
    default_tier: str = "limited"
    """The risk tier of models that neither their project nor a person has put into one."""
    waiver_days: int = 180
    """How long a waiver of what an imported version is missing may last at most, in days."""
    step_memory_mb: int = 4096
    """Resident memory at which a step process is stopped."""
    step_seconds: int = 3600
    """Seconds after which a step process is stopped."""
    scratch: str = ""
    """Where steps keep temporary files, in clear: a folder in memory or on an encrypted disk; empty means /dev/shm."""
    audit_origin: str = ""
    """The name of the home's audit log, in each checkpoint: give each log of yours one of its own, before the home's
    first start. Empty means the one that the home has, `falaj.local/audit` for a new one."""
    audit_shards: str = "none"
    """When the audit log begins a new shard by itself: `year` or `month`, or `none`: by `falaj audit shard` only."""
    witnesses: str = ""
    """A file with the witnesses of the audit log (c2sp.org/tlog-policy), relative to the project; empty means none."""
    signer_attestation: str = ""
    """Where the key that signs evidence lies: `env:NAME`, `pkcs11:…`, `awskms:…`, `gcpkms:…`, `azurekms:…` or `hashivault:…`.
    Empty means in the home. It is asked when the home or the key's successor is made (`falaj keys rotate`), and so are these:"""
    signer_dev: str = ""
    """Where dev's key lies."""
    signer_staging: str = ""
    """Where staging's key lies."""
    signer_production: str = ""
    """Where production's key lies."""
    signer_model: str = ""
    """Where the key that signs models lies; ECDSA P-256 only."""
    signer_log: str = ""
    """Where the key of the audit log lies; Ed25519 only."""
    kek: str = ""
    """Where the key-encryption key lies: `env:NAME`, `pkcs11:…` or `hashivault:NAME`. Empty means in the home. It is asked when
    the home or the key's successor is made (`falaj keys rotate kek`)."""
    evaluator_seconds: int = 30
    """Seconds without a look at what the data plane answers, after which an incident opens."""
    log_level: str = "info"
    """debug, info, warning or error."""
    oidc_issuer: str = ""
    """The OpenID provider whose people may sign in: its issuer, exactly as it says it. Empty means none."""
    oidc_client_id: str = ""
    """The client that the provider knows this home as."""
    oidc_client_secret: str = ""
    """The client's secret, best set in the environment; empty for a public client."""
    oidc_client_secret_file: str = ""
    """A file that holds the client's secret, relative to the project."""
    oidc_audience: str = ""
    """Whom ID tokens must be for, where that is not the client."""
    oidc_scopes: str = "openid profile"
    """The scopes that are asked for; many providers tell groups only when theirs is asked for too."""
    oidc_group_claim: str = "groups"
    """The claim of the ID token that lists somebody's groups."""
    oidc_groups: str = ""
    """Which groups give which roles: `group=role; group=role`. Whoever is in none of them cannot sign in."""
    oidc_session_hours: int = 12
    """How long a sign-in lasts, in the console (12 at most) and for the command line, in hours."""
    oidc_redirect_url: str = ""
    """Where the provider sends browsers back to, where that is not `/oidc/callback` at the address that they asked for."""

    @property
    def signers(self) -> dict[str, str]:
        """Where each signing key lies, by its name, and the key-encryption key; empty for the home."""
        names = ("attestation", "dev", "staging", "production", "model", "log")
        return {name: getattr(self, f"signer_{name}") for name in names} | {"kek": self.kek}

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not (self.tls and self.host):
            raise Invalid(
                f"refusing to listen on {self.host}: beyond loopback only with TLS and certificates on both sides",
                hint="set FALAJ_TLS to a folder with certificates (docs/how-to/serve-beyond-loopback.md), or host to 127.0.0.1",
                code="not_loopback",
            )
        for name in ("port", "plane_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise Invalid(
                    f"{name} must be 0 to 65535",
                    hint=f"set FALAJ_{name.upper()} to a port, or 0 for any",
                    code="bad_setting",
                )
        if self.server and not self.server.startswith(("http://", "https://")):
            raise Invalid(
                f"{self.server[:80]!r} is no address of a control plane",
                hint="write it like http://127.0.0.1:8080 (--server, FALAJ_SERVER), or unset it to use the home's own",
                code="bad_setting",
            )
        if self.audit_shards not in PERIODS:
            raise Invalid(
                f"the audit log has no shards by {self.audit_shards!r}",
                hint=f"set FALAJ_AUDIT_SHARDS to one of {', '.join(PERIODS)}",
                code="bad_setting",
            )
        if self.log_level not in LEVELS:
            raise Invalid(
                f"there is no log level {self.log_level!r}",
                hint=f"set FALAJ_LOG_LEVEL to one of {', '.join(LEVELS)}",
                code="bad_setting",
            )
        for name, least in (
            ("plane_workers", 1),
            ("approvals", 1),
            ("staging_approvals", 0),
            ("approval_days", 1),
            ("waiver_days", 1),
            ("step_memory_mb", 256),
            ("step_seconds", 1),
            ("evaluator_seconds", 1),
            ("oidc_session_hours", 1),
        ):
            if getattr(self, name) < least:
                raise Invalid(
                    f"{name} must be at least {least}",
                    hint=f"set FALAJ_{name.upper()} to {least} or more",
                    code="bad_setting",
                )


def load_settings(environ: Mapping[str, str], folder: Path, **overrides: Any) -> Settings:
    """Read the settings for `folder`.

    `falaj.toml` is looked for in `folder` and its parents; relative paths in it are relative to it.
    Raises `Invalid` for an unknown name or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    file = settings_file(folder)
    if file is not None:
        values.update(_from_file(file))
    variables = {f"FALAJ_{name.upper()}": name for name in Settings.__struct_fields__}
    unknown = sorted(v for v in environ if v.startswith("FALAJ_") and v not in variables.keys() | _OF_THE_DATA_PLANE)
    if unknown:
        raise Invalid(
            f"there is no setting {unknown[0]}",
            hint="correct or unset it: a misspelt setting would leave its default in force",
            code="bad_setting",
        )
    values.update({name: environ[variable] for variable, name in variables.items() if environ.get(variable)})
    values.update({k: v for k, v in overrides.items() if v is not None})
    try:
        settings = msgspec.convert(values, Settings, strict=False, dec_hook=_path)
    except msgspec.ValidationError as e:
        why, _, place = str(e).partition(" - at `$.")
        name = place.rstrip("`")
        raise Invalid(
            f"FALAJ_{name.upper()} ({name} in falaj.toml) is wrong: {why}" if name else f"a setting is wrong: {why}",
            hint="correct or unset it; docs/reference/settings.md lists every setting with its type and default",
            code="bad_setting",
        ) from e
    project = (folder / settings.project).resolve()
    files = {n: str(project / getattr(settings, n)) for n in _OF_THE_PROJECT if getattr(settings, n)}
    return msgspec.structs.replace(settings, home=(folder / settings.home).resolve(), project=project, **files)


def settings_file(folder: Path) -> Path | None:
    """The `falaj.toml` that holds in a folder: its own, or that of the nearest parent that has one."""
    return next((p / "falaj.toml" for p in (folder, *folder.parents) if (p / "falaj.toml").is_file()), None)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise Invalid(
            f"{file.name} cannot be read: {e}", hint="mend the file; it is TOML", code="bad_settings_file"
        ) from e
    found = table.get("falaj", {})
    if not isinstance(found, dict):
        raise Invalid(
            f"[falaj] in {file.name} is not a table", hint="write [falaj] on a line of its own", code="bad_setting"
        )
    values = {"project": ".", "home": ".falaj", **found}
    for name in ("project", "home", *_OF_THE_PROJECT):
        if isinstance(values.get(name), str) and values[name]:  # anything else is refused with the other types
            values[name] = str((file.parent / values[name]).resolve())
    return values


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {kind.__name__}")
