"""What every stage is subject to.

`door`      the one way to change anything: authorise, do, audit, commit
`signing`   keys, DSSE, in-toto statements, model signatures
`identity`  principals, tokens, the guard before every route
`policy`    decisions (Cedar) with the rules that decided
`audit`     the append-only log: entries, Merkle tree, checkpoints, verification
`changes`   change records and approvals
`privacy`   purposes and regions
`lineage`   who came from what
"""
