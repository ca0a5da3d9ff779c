"""What is proven of a model: gates, measurements, verdicts, attestations.

`model`       gates and findings; `judge` compares a measurement with its gate
`statements`  findings and build facts as in-toto statements, ready to be signed
`steps`       the measuring itself, all gates of one version in one process

What is measured goes: model folder + holdout + parity rows → `Measurement` → `Finding` → statement.
"""
