"""Where bytes rest. Knows no stage.

`sql`     transactions: one writer per home with group commit, many readers; migrations
`blobs`   immutable content by digest, each encrypted under its own data key
`lake`    Delta tables (used by step processes only)
`online`  the low-latency key-value store for serving (LMDB)
"""
