"""The commands, one module a part of the channel. `app` names them all.

`home`    init, up, status, down, console, token
`build`   plan, apply, ingest, data, features, train
`flows`   flow
`look`    versions, runs, evidence, lineage
`govern`  approve, promote, reject, admit, audit
`environments`  env
`traffic` rollout, rollback, drift, incidents, labels
`serve`   predict
`keeping` backup, restore, keys
`doctor`  doctor
"""
