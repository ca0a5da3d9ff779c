"""The append-only log: what anyone did, in the C2SP transparency-log formats that foreign tools can check.

`model`      Entry, Stored, Conditions, Report; how an entry becomes at most 4 KiB of canonical JSON; ACTIONS
`merkle`     RFC 6962: leaf and node hashes, the frontier of a growing tree, inclusion and consistency proofs
`note`       signed notes, checkpoints and cosignatures (Ed25519), verification keys
`tiles`      tile paths, the tiles of a growing tree, entry bundles, durable writing of files
`rotation`   the log's key replaced: the statement that leads from one key to the next
`rotating`   replaces it, so that a crash leaves one key or the other
`quorum`     which witnesses must have cosigned: a policy file
`proof`      one entry's proof in one file, checked offline
`export`     the log as plain files that travel, laid over an earlier copy only if they extend it
`ports`      AuditStore, Cosigners
`store`      the SQL tables; an index is a position, contiguous and never reused
`publisher`  signs a checkpoint over everything committed and writes the tiles
`verify`     checks a published folder and database rows, from bytes to leaf to root; knows no SQL
`witnessing` asks the log's witnesses to cosign, and tells when one refuses
`witness`    the other side: a witness with its own key and memory; knows no SQL and no home
`service`    record (the door's Auditor), search, verify, prove

An `Event` becomes an `Entry`, an entry becomes bytes in the change's own transaction; the publisher
turns committed bytes into leaves, tiles and a signed checkpoint within a second. What is not yet
under a checkpoint is protected by the database only.

    report = verify_folder(Path("audit"), vkey="falaj.example/log+530d903a+…")
    report.ok, report.problems
"""
