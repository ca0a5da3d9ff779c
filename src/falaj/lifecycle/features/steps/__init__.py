"""The work of the feature stage in a step process.

`views`        run a view's code and hold it to its declared columns
`join`         values as they were known: for many rows at their own times, or for all keys at one time
`frame`        the rows that a model is trained on, each with what was known at its time
`materialize`  the values of one moment into the online store
"""
