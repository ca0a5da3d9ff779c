"""The first look in a browser: pages drawn on the server, a little htmx, no build step.

`views`    what each page shows: frozen types only
`reader`   what the console needs from outside: ConsoleReader, Sessions, Guard
`channel`  where each version stands between data and monitoring: pure rules
`charts`   SVG from numbers: curves, sparklines, a value against its limit
`words`    every sentence in one table, so that another language is another table
`pages`    templates, assets, and errors as pages
`security` headers for every answer; changes only from our own pages
`routes`   the HTTP paths
`facts`    what each stage has to say about a model: pure rules
`logbook`  the audit log and its refusals, for the pages
`home`     the reader that `reader` names, over an opened control plane
`sessions` the other two

The shortest use::

    app = api.build(plane, [routes.build(HomeReader(plane), HomeSessions(plane), ConsoleGuard(plane.door))])
    app.add_middleware(security.SecurityHeaders)
"""
