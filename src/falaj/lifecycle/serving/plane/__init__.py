"""The data plane: verify → load → enrich → predict → record. It trusts nobody.

`verify`      the trust root; is this bundle, is this admission, what it claims to be
`loading`     encrypted blobs → hashed bytes → an ONNX session made from those very bytes
`generations` keeps the newest good bundle in service; the last good one survives on disk
`state`       what is served at one moment: versions, routes, access; replaced as a whole
`protocol`    Open Inference Protocol v2: strict requests, answers, metadata
`enrich`      feature values by join key, with their time to live
`inference`   one request, from its bytes to its answer; a challenger's failure is answered by the stable version
`attempt`     one version's try at one request; `rows` encodes a single row fast
`shadows`     mirrored requests, run and recorded beside the traffic
`watching`    the guard: what a worker sees of a challenger, and when it has seen enough
`trips`       which challengers were stopped, for all workers and after a restart
`journal`     every answer is written down before it is sent
`metrics`     counts, and the Prometheus text
`app`         routes, each with its action; errors to HTTP
`worker`      one process: the parts, joined; its housekeeping
`supervisor`  the process above the workers: replaces those that die, and lets none miss a signal to stop

    bundle.json ─→ generations ─→ state ←─ app ←─ request
                       │                    │
                    loading             inference ─→ enrich, session, journal
                                            │  ↘ shadows
                       trips ←─ watching ←──┘

Folder of a data plane: `key.pem`, `trust.json`, `bundle.json`, `last-good.json`, `guard.json`, `status/`,
`journal/`.
"""
