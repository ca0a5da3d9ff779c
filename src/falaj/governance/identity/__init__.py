"""Who is asking.

`model`    roles and principals: pure rules
`verify`   token format and verification (kernel only; used by the data plane)
`service`  principals, tokens and console sessions
`oidc`     people whom an OpenID provider knows
`guard`    what stands before every route: it authenticates, and it knows the route's action
"""
