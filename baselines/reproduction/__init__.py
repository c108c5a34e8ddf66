"""REPRODUCTION.md and a page per paper: what of them holds, as a pure function of the published records.

``evidence`` reads rows; ``findings`` holds the rules, fixed beforehand, by which ``cascade``, ``dynamics`` and
``rivals`` judge claims; ``papers`` lists them, ``front`` and ``page`` write. The entry point ``anytime_bench.pages``
makes ``leaderboard build`` write the pages and ``leaderboard check`` compare them.
"""
