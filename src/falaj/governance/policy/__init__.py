"""May this principal do this? Cedar decides, behind `door.Authoriser`.

`decide`         the engine (kernel and cedarpy only; used by the data plane)
`default.cedar`  the policy that a new home starts with
`environments`   what each environment adds to it
"""
