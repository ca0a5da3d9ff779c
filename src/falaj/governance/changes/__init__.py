"""Human decisions: approvals of versions, the inventory of models, the kill switch, and the records of what was changed.

An approval counts only for the evidence that its giver saw; evidence that changes afterwards voids it, and so do time
and its giver. The author's own approval never counts: the policy refuses it, except in the tier for one person, where
it counts after a delay and is marked for good.

`tiers`       what each risk tier asks for and forbids: a table, and nothing else
`inventory`   what is known of a model, by its project and by people, and what follows from it: pure
`model`       approvals, and which of them count: pure
`records`     change records: pure
`oversight`   the inventory kept, models validated, retired
`killing`     models killed and revived
`service`     approvals given and revoked
"""
