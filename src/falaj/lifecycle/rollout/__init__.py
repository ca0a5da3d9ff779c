"""Which version gets which share of the traffic.

`model`    traffic plans and their rules
`service`  setting a plan; the serving stage projects it to the data plane
"""
