"""Change records, derived from the audit log and the tables whenever somebody looks; only reviews are kept.

`trail`     the entries of the log that concern a model
`releases`  versions that were given traffic, or staged, or given traffic back
`words`     what people decided about a model: kills, revivals, waivers, approvals taken back, tiers, retirements
`service`   listed, shown, reviewed
"""
