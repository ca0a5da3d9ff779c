"""Joins the stages into whole ways: build (data → registry), release (registry → traffic).

`model`     what a project says of one model: `ModelDefinition`
`service`   the applied definition, people's decisions
`starting`  a version's way into traffic: by its last approval, or by a person
`flows`     build, release, rollout, retraining
`why`       one prediction, from its inputs to whoever approved its version
`environments`  what each environment holds, how two differ, carrying a version on
`overview`  where each model stands

The loop is no stage itself; it is the only place that knows all of them.
"""
