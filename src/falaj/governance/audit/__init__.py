"""The append-only log: what anyone did, in the C2SP transparency-log formats that foreign tools can check.

`model`      Entry, Stored, Conditions, Report; how an entry becomes at most 4 KiB of canonical JSON; ACTIONS
`merkle`     RFC 6962: leaf and node hashes, the frontier of a growing tree, inclusion and consistency proofs
`note`       signed notes and checkpoints (Ed25519), verification keys
`tiles`      tile paths, the tiles of a growing tree, entry bundles, durable writing of files
`ports`      AuditStore
`store`      the SQL tables; an index is a position, contiguous and never reused
`publisher`  signs a checkpoint over everything committed and writes the tiles
`verify`     checks a published folder and database rows, from bytes to leaf to root; knows no SQL
`service`    record (the door's Auditor), search, verify

An `Event` becomes an `Entry`, an entry becomes bytes in the change's own transaction; the publisher
turns committed bytes into leaves, tiles and a signed checkpoint within a second. What is not yet
under a checkpoint is protected by the database only.

    report = verify_folder(Path("audit"), vkey="falaj.example/log+530d903a+…")
    report.ok, report.problems
"""
