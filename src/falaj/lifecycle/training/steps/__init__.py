"""Training as it runs in a step process.

`split`         a training frame → labels, parts by time, frozen categories
`training_set`  what the project's function is handed, as pandas, NumPy or Polars
`native`        what the trained estimator itself answers
`convert`       estimator → ONNX, the same numbers out
`contract`      the contract of the trained model, and reading it back with its session
`parity`        the rows on which ONNX and the estimator must agree
`graphs`        which ONNX graphs are allowed
`values`        the columns of any table as the encoder takes them
`profile`       how the training part is distributed, and how unlike each other its days are
`metrics`       quality figures of scores against labels
`run`           all of it: `run(task, frame, train, report) -> TrainOutcome`
`foreign`       the same for a model that exists already
"""
