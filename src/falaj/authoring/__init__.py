"""How a project says what it is: plain functions and frozen objects.

`definitions`  Source, Entity, feature views, models, request features
`gate`         what evidence a model must bring
`project`      a folder → its module → one frozen, digestible `ProjectDefinition`

Nothing is registered anywhere on import: a project's objects are what its module holds.
"""
