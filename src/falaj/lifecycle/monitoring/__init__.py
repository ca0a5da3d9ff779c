"""How what serves is doing: drift, quality with labels, challengers, the data plane's health, incidents.

`tail`       reads the prediction journal as it grows
`observer`   records → scored rows and windows; judges windows
`drift`      a window against the version's frozen reference: pure rules
`analysis`   a challenger beside the stable version: pure rules over sequential tests
`losses`     how wrong an answer was once its label has come: pure rules
`analyst`    the judge of rollouts, over journal, labels and guard
`quality`    labels, and windows as people ask for them
`backtest`   what another version would have answered; `flows` and `steps` do it
`reviews`    people look at answers: which wait, what was decided
`incidents`  what is not as it should be
`external`   models that somebody else serves: declared, heard, watched
`health`     how a version answered in a window: requests, failures, latency
`policy`     what a project asks of monitoring
`model`      frozen types, the data plane's health in one word
`service`    the data plane's health, and the watch over it
"""
