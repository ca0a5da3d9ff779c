"""How what serves is doing: the data plane's workers, their requests, errors and latency.

`model`    health in words: pure rules
`service`  reads what the data plane says of itself
"""
