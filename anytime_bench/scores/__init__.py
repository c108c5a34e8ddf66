"""Scores: pure functions of a stored trace and its costs. No model and no GPU; torch only where a rule learns.

- ``catalogue``: scores per exit and per image, to which plugins add; ``per_sample``, ``confidence`` behind them
- ``curve``: areas under the anytime curve, time to a share, envelopes; ``joint``, ``exit_sets``, ``horizons`` on boards
- ``stopping_contract``, ``stopping_rules``: what a rule for stopping early is, and their table
- ``robustness``: answers under noise
- ``intervals``, ``variance``, ``compare``, ``verdicts``, ``ranks``: uncertainty and verdicts
- ``run_scores``: all that a record holds, typed in ``results``
"""
