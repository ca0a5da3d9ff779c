"""The work of the data stage in a step process.

`files`     which files a source names, and their rows as they stand
`looks`     what a file is by its bytes, and how its columns are named in messages
`contract`  every row judged: the reason it is bad, or none
`ingest`    one load from files to a Delta version and its quarantine
`tables`    tables that somebody hands over, read piece by piece
`raw`       rows as a source's files have them, brought to the form of its table
"""
