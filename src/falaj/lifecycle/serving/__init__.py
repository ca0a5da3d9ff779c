"""Serving: what the control plane tells the data plane, and the data plane itself.

`model`    the signed bundle and what a data plane says of itself
`service`  build, sign and publish bundles; see what the data plane made of them
`process`  a data plane as a child process: the home's own, or a private one for measuring
`plane`    the data plane: verify → load → enrich → predict → record
"""
