"""Serving: what the control plane tells the data plane, and the data plane itself.

`model`    the signed bundle and what a data plane says of itself
`service`  build, sign and publish bundles; see what the data plane made of them
`journals` sealed segments of the prediction journal: shipped to the lake, each one audited leaf
`seals`    salted commitments to a segment's records
`process`  a data plane as a child process: the home's own, or a private one for measuring
`plane`    the data plane: verify → load → enrich → predict → record
"""
