"""Signatures that strangers can check, with open formats.

`dsse`             envelopes: pre-authentication encoding and verification (kernel only; used by the data plane)
`model_signature`  verification of an OpenSSF model signature (kernel only; used by the data plane)
`sealing`          bytes for one reader: HPKE, RFC 9180 (kernel only)
`trust`            whose signatures count, and until when (kernel only; used by the data plane)
`keys`             the home's key ring
`keyfile`          one private key in a file (kernel only; used by the data plane)
`elsewhere`        a key that lies elsewhere, and `places` where it may lie: variable, token, key service
`signer`           signing envelopes and models with a key of the ring
`service`          replaces and revokes keys
"""
