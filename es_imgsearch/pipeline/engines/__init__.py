"""Engines: the stages in this process (`local`), or in actors of Ray (`spread`).

    intake      jobs of changed paths, what every engine has in common
    local       one process runs all stages
    spread      blocks of files go to actors, and each runs the local engine on them

Only `spread`, `actors` and `cluster` know of Ray, and only the command `sync` imports them.
"""
