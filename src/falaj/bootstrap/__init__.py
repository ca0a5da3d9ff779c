"""The composition roots: the only files that know concrete classes, one a process.

`control_plane`  the API, the flows, the only SQL writer
`data_plane`     the sessions and the prediction journal
`step`           what a step process can do
"""
