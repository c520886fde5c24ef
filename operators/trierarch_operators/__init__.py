"""The operators: kopf processes around the decisions of ``trierarch``."""
