"""Delta tables on local files; used by step processes only.

`delta`  append once per operation, read exactly one version, name a version by its files
"""
