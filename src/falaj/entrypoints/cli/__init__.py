"""The command line: an HTTP client and nothing more.

`app`       the commands, exit codes, errors
`session`   the options that every command takes
`client`    talks to the running control plane, or to one started for this command alone
`render`    tables, progress and JSON
`commands`  one module a part of the channel
`demo`      the whole channel on real flights
"""
