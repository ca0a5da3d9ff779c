"""Immutable content by digest.

`format`  how a blob is encrypted under its data key (kernel only; used by the data plane)
`local`   blobs in a folder, data keys wrapped by the home's key-encryption key
"""
