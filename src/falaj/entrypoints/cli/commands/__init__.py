"""The commands, one module a part of the channel. `app` names them all.

`home`          init, up, status, down, console, token
`clock`         clock
`build`         plan, apply, ingest, data, features, train
`importing`     import, waiver
`flows`         flow
`look`          versions, runs, evidence, lineage
`govern`        approve, promote, reject, admit, audit
`policy`, `policytest`  policy
`environments`  env
`traffic`       rollout, rollback, drift, incidents, labels
`backtest`      backtest
`review`        review
`serve`         predict
`score`         score
`follow`        why, loop, journal
`external`      external, predictions
`gates`         gates
`keeping`       backup, restore, keys
`doctor`        doctor
`errors`        errors
"""
