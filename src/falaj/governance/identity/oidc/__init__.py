"""People who are known to somebody else: OpenID Connect.

`model`    how a provider is set up, and which of its groups give which roles: pure
`tokens`   strict verification of ID tokens and of the keys that sign them: pure
`keys`     a provider's published keys, kept for a while, fetched again when one is unknown
`http`     what is asked of a provider, and how little of its answer is believed
`provider` one provider: where its browsers go, what a code or a device is exchanged for
`pending`  sign-ins under way: state, nonce and verifier, each good once
`signin`   from a verified ID token to a Falaj principal and token, and back
`routes`   the device flow and signing out, over HTTP
"""
