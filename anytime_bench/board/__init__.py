"""The leaderboard's parts, in the order in which data flows: costs, rows, ranking, tables, files."""
