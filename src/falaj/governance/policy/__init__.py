"""May this principal do this? Cedar decides, behind `door.Authoriser`.

`platform.cedar`  the platform's own rules, which no home can take away
`environments`    what each environment adds to them
`default.cedar`   the home's own policy, as a new home starts with it
`decide`          the engine (kernel and cedarpy only; used by the data plane)
`schema`          what there is to speak about: actions, resources and the facts about them
`statements`      a policy's text taken apart and checked, before it may hold
`model`           versions of the home's policy, and what another one would change
`service`         the policy that holds: changed through the door only
`cases`           tables of cases: what is asked, and what is expected
`explain`         which rule decided, and what would change it
"""
