"""The work of the feature stage in a step process.

`views`        run a view's code and hold it to its declared columns
`join`         values as they were known: for many rows at their own times, or for all keys at one time
`materialize`  the values of one moment into the online store
"""
