"""Shared words only: what every tier above may use, and nothing that knows a stage.

`errors`   the six kinds of refusal, each with a hint, an HTTP status and an exit code
`digests`  SHA-256 names, canonical JSON, the digest of a folder of files
`ids`      time-ordered random identifiers
`clock`    the one clock; nothing else reads the time
`access`   Principal, Action, Resource, Question, Decision
`settings` FALAJ_* and falaj.toml, read once, then frozen
`names`    what things may be called
`faults`   what project code did wrong
`disk`     what it means when a disk refuses
`files`    writing what must survive a power cut
`locks`    locks on files, held as long as a process lives
`environments` the environments that a home hosts, in their order
`log`      structured logs to standard error
`lookout`  a thread that looks after something, again and again
"""
