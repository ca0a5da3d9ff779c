"""What is wrong with a home, and how to mend it. Everything is read only; `mending` does what was asked for and is safe.

`model`      a finding, and what a patient is
`folder`     the folder itself: rights, lock, disk, processes, ports, what was left over
`truth`      databases, schema, audit log, keys, blobs
`stores`     lake, online store, journal
`planes`     bundles, admissions, guards, flows, clock, backups, tokens
`machine`    Python, distributions, ONNX Runtime
`examining`  all of them, one after another: a check that fails itself is a finding too
"""
