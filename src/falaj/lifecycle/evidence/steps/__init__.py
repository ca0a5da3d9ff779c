"""Measuring, as it runs in a step process: `run.run(task, report, token) -> EvidenceOutcome`.

`quality`     metric and slice gates, on the holdout
`champion`    the candidate beside the version that serves, on the same rows
`parity`      ONNX against the estimator's own answers
`scan`        what is in the model folder
`latency`     how fast a data plane answers, and whether with the model's own numbers
`run`         all gates of one version, in one process
`predictions` gates on a table of predictions that somebody else's model made
"""
