"""Makers of the reference: one module a subject, each turning code into Markdown.

`tables`      what they share: a table, a page's first line
`errors`      every code by the places that raise it, read from the syntax tree, beside the hand-written catalogue
`commands`    the command line · `http` both planes' routes · `settings` · `policy` actions and audit events
`opened`      a home that is opened once, for its routes and flows
`predicates`  in-toto predicate types · `figures` metrics · `flows` · `authoring` the names of a project and its gates
"""
