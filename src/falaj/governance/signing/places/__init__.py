"""Where a signing key may lie outside the home. Each file opens one sort of place (`place.Place`); `elsewhere` picks it.

`variable`  `env:NAME`                     a PEM in an environment variable
`token`     `pkcs11:token=…;object=…?…`    a token or HSM, by PKCS#11 (RFC 7512)
`services`  `awskms:` `gcpkms:` `azurekms:` `hashivault:`    a key service, by securesystemslib's signers
"""
