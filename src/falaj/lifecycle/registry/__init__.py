"""Registered models, their immutable versions, and what admits them.

`model`    versions, admissions, and the rule of what is admissible
`service`  package → register or refuse → admit
`steps`    signing a model folder (in a step process)
"""
