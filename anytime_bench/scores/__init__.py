"""Scores: pure functions of a stored trace and its costs. No model, no GPU, no torch (one function excepted, lazily).

- ``curve``: areas under the anytime curve, time to a share, regret
- ``stopping``, ``risk_control``, ``learned_stopping``: rules for stopping early
- ``per_sample``: what going on does to single images
- ``confidence``: calibration and ranking per exit
- ``typicality``, ``outside``: what else the trace can be read for
- ``robustness``: answers under noise
- ``intervals``, ``compare``: uncertainty and verdicts
- ``summary``: all that a record holds
"""
