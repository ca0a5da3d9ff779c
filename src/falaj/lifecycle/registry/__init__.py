"""Registered models, their immutable versions, and what admits them.

`model`       versions, environments, admissions, and the rule of what is admissible
`statements`  admissions and rehearsals as signed statements, and read back from them
`waiver`      what two people may let pass of an imported version; `waivers` is its service
`service`     package → register or refuse → admit → rehearse
`steps`       signing a model folder (in a step process)
"""
