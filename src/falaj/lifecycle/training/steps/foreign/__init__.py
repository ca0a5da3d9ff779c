"""Bringing in a model that exists already.

`inside`     what runs in the sandbox: reads a stranger's model, converts it, lets it answer
`originals`  the models that can be read there, and the order in which their forms are preferred
`contract`   what goes in and comes out, from what the model says, the project defines and the importer declares
`adapt`      a stranger's graph → one tensor in, class and score out
`rows`       the rows on which both must agree, where there are no data
`run`        all of it: `run(task, frame, report) -> ImportOutcome`

Out of the sandbox come ONNX bytes and JSON only, and both are checked again here.
"""
