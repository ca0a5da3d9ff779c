"""People look at answers: which are waiting, what was decided.

model     a review, what may be said of one, and which answers a project's rule sends to people
ports     what reviewing needs of others
service   queue by rule, ask for one, confirm or override, tell of those that wait too long
store     rows in `falaj.db`
routes    HTTP
"""
