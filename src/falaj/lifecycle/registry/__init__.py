"""Registered models, their immutable versions, and what admits them.

`model`       versions, environments, admissions, and the rule of what is admissible
`statements`  admissions and rehearsals as signed statements, and read back from them
`service`     package → register or refuse → admit → rehearse
`steps`       signing a model folder (in a step process)
"""
