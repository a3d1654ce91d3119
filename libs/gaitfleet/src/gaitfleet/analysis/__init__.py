"""What the episodes of a run hold, as numbers, pictures and one page; `gaitfleet analyze` is its command.

`collect` reads a run from its API, one episode at a time; `tables` and `figures` show what it found; `page` makes one
HTML file of both. Figures and page need the extra ``gaitfleet[analyze]``.
"""
