"""What the control plane hands to the data plane: one signed bundle. Frozen types only.

The bundle travels as a DSSE envelope of payload type `BUNDLE_TYPE`. The data plane trusts its
signature, an admission for each release, and nothing else.
"""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.identity.verify import KnownToken
from falaj.kernel.access import Action
from falaj.lifecycle.registry.model import ADMISSION_TYPE as ADMISSION_TYPE
from falaj.lifecycle.rollout.model import TrafficPlan

BUNDLE_PUBLISH = Action("serving.publish", "system", "DataPlane", "hand a signed bundle to the data plane")
LOAD_REFUSED = Action("serving.load", "system", "ModelVersion", "a data plane loads a version")
PREDICTION_READ = Action("serving.read_prediction", "audit", "Prediction", "read the record of one prediction")
PREDICT = Action("serving.predict", "inference", "Model", "ask a model for predictions, and what it wants to be asked")
OBSERVE = Action("serving.observe", "read", "DataPlane", "read a data plane's status and metrics")
PLANE_ACTIONS = (PREDICT, OBSERVE)
ACTIONS = (BUNDLE_PUBLISH, LOAD_REFUSED, PREDICTION_READ, *PLANE_ACTIONS)

BUNDLE_TYPE = "application/vnd.falaj.bundle+json"
PEPPER = "falaj/pepper"
BLOB_KEY = "falaj/blob-key/"  # followed by the blob's digest
LATENCY_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the latency histogram's buckets; one more bucket holds what is slower."""


class SealedBlob(msgspec.Struct, frozen=True):
    """One file of a model: where its encrypted bytes are, and their data key,
    sealed to this data plane for the purpose BLOB_KEY + blob (base64)."""

    path: str
    blob: str  # digest of the plain bytes; the name of the encrypted blob
    key: str


class Release(msgspec.Struct, frozen=True):
    """A version that this data plane shall load."""

    digest: str
    alias: str
    model: str
    files: tuple[SealedBlob, ...]
    signature: dict[str, Any]  # the OpenSSF signature: a Sigstore bundle
    admission: dict[str, Any]  # DSSE envelope of an in-toto statement


class Access(msgspec.Struct, frozen=True):
    """Who may do what on this data plane: a snapshot of tokens and policy."""

    tokens: tuple[KnownToken, ...]
    policy: str  # Cedar
    pepper: str  # base64, sealed for the purpose PEPPER


class Bundle(msgspec.Struct, frozen=True):
    """The signed instruction. `generation` only grows; a smaller one is refused."""

    generation: int
    environment: str
    issued_at: str
    plans: tuple[TrafficPlan, ...]
    releases: tuple[Release, ...]
    access: Access


class LoadReport(msgspec.Struct, frozen=True):
    """What happened to one release: loaded, or refused with the reason and the next step."""

    digest: str
    alias: str
    state: str  # loaded | refused
    code: str = ""
    reason: str = ""
    hint: str = ""
    seconds: float = 0.0


class VersionCounts(msgspec.Struct, frozen=True):
    """What one worker has counted for one version since it loaded it.

    `errors` counts requests that the model itself failed: it raised, or its answer was not a finite number.
    `latency` counts requests by bucket of `LATENCY_SECONDS`, `seconds` is their sum;
    `features` counts looked-up view values by status: present, expired, missing.
    """

    model: str
    alias: str
    digest: str
    requests: int
    errors: int
    rows: int
    seconds: float
    latency: tuple[int, ...]
    features: dict[str, int]


class PlaneStatus(msgspec.Struct, frozen=True):
    """What a data plane worker says of itself (`status/<worker>.json` in its folder, and over HTTP)."""

    worker: str
    pid: int
    generation: int  # of the last good bundle; 0 without one
    environment: str
    bundle_issued_at: str
    refused_bundle: str  # why the newest bundle file was not taken; empty when it was
    releases: tuple[LoadReport, ...]
    address: str
    started_at: str
    updated_at: str
    requests: int = 0
    errors: int = 0
    ready: bool = False
    versions: tuple[VersionCounts, ...] = ()
    responses: dict[str, int] = {}  # HTTP status → answers


class Target(msgspec.Struct, frozen=True):
    """A data plane that bundles are made for: its folder, its environment, its public key (PEM)."""

    folder: str
    environment: str
    key: str
