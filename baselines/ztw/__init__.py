"""Zero Time Waste: internal classifiers that pass their answers on, and ensembles of them."""
