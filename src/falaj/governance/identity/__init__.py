"""Who is asking.

`model`      roles and principals: pure rules
`verify`     token format and verification (kernel only; used by the data plane)
`service`    principals, tokens and console sessions
`oidc`       people whom an OpenID provider knows
`guard`      what stands before every route: it authenticates, and it knows the route's action
`addresses`  where one may speak in the clear (kernel only)
`peers`      SPIFFE ids in certificates, and who may call whom (kernel and cryptography; used by the data plane)
`tls`        TLS 1.3 with certificates on both sides, checked within the handshake (the same)
`authority`  a small certificate authority, for development
"""
