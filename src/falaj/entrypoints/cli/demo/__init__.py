"""`falaj demo`: the whole channel on real flights, told as it happens.

`command`   the command itself
`story`     the acts, in the channel's order
`stage`     what the acts share: clients, screen, clock
`screen`    the timeline on a terminal, or one JSON object an event
`flights`   the recorded flights as files and as requests
`traffic`   flights asked over HTTP, and their labels
`rolling`   approval and rollout under traffic
`asking`    many small requests over a few open connections
`season`    the year goes on: labels, drift, retraining, rollout, and what it would have been without
`rollback`  versions that passed offline and answer differently live
`variation` the same story on other data
`refusals`  what is not let through
`copies`    a copy of the home, for that
`proof`     the closing table, lineage, and the log under attack
"""
