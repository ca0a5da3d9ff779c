"""The work of the data stage in a step process.

`files`     which files a source names, and their rows as they stand
`contract`  every row judged: the reason it is bad, or none
`ingest`    one load from files to a Delta version and its quarantine
"""
