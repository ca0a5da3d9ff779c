"""How a project says what it is: plain functions and frozen objects.

`definitions`   Source, Entity, feature views, models, request features
`gate`          what evidence a model must bring
`rollout`       how a challenger gets its traffic
`monitor`       what is watched, and when to train again
`project`       a folder → its module → one frozen, digestible `ProjectDefinition`
`describe`      the live objects → their frozen definitions, with every check across them
`gatefile`      gates of a model that no project declares, in TOML
`externalfile`  a model that somebody else serves, in TOML

Nothing is registered anywhere on import: a project's objects are what its module holds.
"""
