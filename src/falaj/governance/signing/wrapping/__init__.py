"""Where the key-encryption key may lie outside the home. Each file wraps at one sort of place (`wrapper.Wrapper`); `kek` uses it.

`variable`  `env:NAME`                     256 bits in an environment variable, as base64
`token`     `pkcs11:token=…;object=…?…`    an AES-256 key in a token or HSM that never leaves it, by PKCS#11 (RFC 7512)
`vault`     `hashivault:NAME`              a key of HashiCorp Vault's transit engine
"""
