"""The plugins here are input of ``test_checks.py``, loaded by path; pytest need not search them for doctests."""

collect_ignore_glob = ["*.py"]
