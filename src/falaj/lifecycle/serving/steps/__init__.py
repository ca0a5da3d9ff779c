"""What serving does in step processes.

`ship`      a sealed journal segment into the lake
`rehearse`  real requests to a data plane, before production sees the version
"""
