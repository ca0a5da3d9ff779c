"""Checks an exported folder the way an auditor does, with nothing of Falaj: `python outsider.py FOLDER`.

DSSE by securesystemslib, the ML-BOM by CycloneDX's own strict validator. Exit 1 with what does not hold.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key, SSlibKey


def check(folder: Path) -> int:
    """Raises when something does not hold; returns how many envelopes did."""
    keys: dict[str, list[Key]] = {}
    for told in json.loads((folder / "keys.json").read_text())["keys"]:
        public = load_pem_public_key((folder / told["file"]).read_bytes())
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert told["fingerprint"] == "sha256:" + hashlib.sha256(der).hexdigest(), told["file"]
        for place in told["signs"]:
            keys.setdefault(place, []).append(SSlibKey.from_crypto(public))
    digest = json.loads((folder / "approvals.json").read_text())["digest"].removeprefix("sha256:")
    envelopes = sorted((folder / "attestations").rglob("*.json"))
    for path in envelopes:
        envelope = Envelope.from_dict(json.loads(path.read_text()))
        place = path.parent.relative_to(folder).as_posix() + "/"
        envelope.verify(keys[place], 1)
        statement = json.loads(envelope.payload)
        assert [s["digest"] for s in statement["subject"]] == [{"sha256": digest}], path
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str((folder / "bom.cdx.json").read_text())
    assert wrong is None, wrong
    if (folder / "provenance.json").exists():
        made = [json.loads(p.read_text()) for p in (folder / "attestations/evidence").glob("*.json")]
        assert (folder / "provenance.json").read_bytes() in [base64.b64decode(e["payload"]) for e in made]
    assert not [m for m in sys.modules if m.partition(".")[0] == "falaj"]
    return len(envelopes)


if __name__ == "__main__":
    print(check(Path(sys.argv[1])), "envelopes hold")  # noqa: T201  # a command
