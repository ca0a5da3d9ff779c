"""Durable flows and where a step runs.

`flow`       what a flow is: a plain async function over a `FlowRun`; knows no engine
`engine`     runs flows on DBOS; the only file that imports it
`steps`      the port to step processes; `child` runs a step in a child process with a clean environment
`reporting`  how a step says how far it is
"""
