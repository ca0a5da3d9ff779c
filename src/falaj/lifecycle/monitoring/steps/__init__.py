"""Monitoring as it runs in a step process.

`recorded`  the answers of a model, from the lake and from the journal's segments that are not in it yet
`backtest`  what another version would have answered, beside what was: `run(task, report) -> BacktestOutcome`
"""
