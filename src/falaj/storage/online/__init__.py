"""The low-latency key-value store for serving.

`fillings`    how entity keys and values are encrypted
`lmdb_store`  one folder on one host: a writer in a step process, readers in every data plane process
"""
