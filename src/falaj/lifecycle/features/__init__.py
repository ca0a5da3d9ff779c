"""Entities, feature views, point-in-time joins and the online store.

`model`  what an entity, a view and a filling are; durations and freshness
`steps`  the work in a step process: compute views, join them as they were known, fill the online store

One rule decides every value, offline and online: at time t, of an entity's rows known by t, the one with
the greatest event time counts, as long as it is not older than the view's TTL.
"""
