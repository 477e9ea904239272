"""The any-order prior: symbols in any order of steps, one or several a step."""
