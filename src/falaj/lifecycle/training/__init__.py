"""From a training frame to an ONNX model with a contract.

`model`     runs, the model contract, the reference profile, what a training step is told and what it answers
`encoding`  raw values → the float32 matrix that the model reads, and its answers back; used by
            training, evidence and the data plane alike
`foreign`   models that exist already: what is said of one, and the record of bringing it in
`imports`   imports begun and recorded, as `service` does with runs
`steps`     the work itself: split by time, the project's function, conversion, parity rows

A run goes: frame → labels and split → `TrainingSet` → the project's function → estimator → ONNX.
"""
