"""Backups as files: one folder for any number of them, a part that two of them share kept once.

    <folder>/sealed/<aa>/<64 hex>    the bytes of a file, sealed (`storage.sealed`), under a pseudonym of their digest
    <folder>/objects/<aa>/<64 hex>   the same in clear, of 0.1
    <folder>/backups/<id>.json       a backup: its signed manifest, written last

`manifest`  what a backup says of itself
`writing`   puts files into a folder; a backup that was not finished leaves no manifest
`reading`   checks every byte and lays the files out again
"""
