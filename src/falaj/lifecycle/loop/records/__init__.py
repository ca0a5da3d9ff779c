"""Change records, derived from the audit log and the tables whenever somebody looks; only reviews are kept.

`trail`       the entries of the log that concern a model, or the home itself
`releases`    versions that were given traffic, or staged, or given traffic back
`words`       what people decided about a model: kills, revivals, waivers, approvals taken back, tiers, retirements
`home`        the home's own changes, by what `facts` asks of the tables: `policies`, `access` (roles and tokens),
              `safeguards` (keys, break-glass, quarantine)
`making`      one decision made into its record
`service`     listed, shown, reviewed
"""
