"""Joins the stages into whole ways: build (data → registry), release (registry → traffic).

`model`  what a project says of one model: `ModelDefinition`

The loop is no stage itself; it is the only place that knows all of them.
"""
