"""BoostNet: an anytime network whose exits are the weak learners of a boosted ensemble."""
