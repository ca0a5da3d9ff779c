"""Everything that speaks for a version, as one folder that others can check without Falaj.

`model`    what lies in the folder, its manifest, and how it travels (a tar): pure
`ports`    whom it is collected from
`knowing`  what the documents may say
`service`  collects and verifies it, from the stages
`routes`   HTTP

    model/                     the model's files, exactly as signed
    model.sig                  the OpenSSF model signature
    attestations/evidence/     in-toto statements, DSSE: one a gate, and how the version was made
    attestations/ENVIRONMENT/  admissions and rehearsals, each signed by the environment's key
    attestations/waivers/      what two people waived of an imported version
    keys/, keys.json           the public keys, their fingerprints, and what each signs
    approvals.json             people's decisions
    provenance.json            the SLSA statement as plain JSON, as it stands in its envelope
    bom.cdx.json               the ML-BOM, CycloneDX 1.6
    MODEL_CARD.md              all that for people
    MANIFEST, MANIFEST.sig     SHA-256 of every other file, and the attestation key's signature of that list
"""
