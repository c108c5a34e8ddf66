"""REPRODUCTION.md: what of the cascade paper holds, as a pure function of the published records.

``evidence`` reads rows, ``claims`` and ``dynamics`` judge them by rules that are fixed beforehand, ``page`` writes. The
entry point ``anytime_bench.pages`` makes ``leaderboard build`` write the page and ``leaderboard check`` compare it.
"""
