"""The tests themselves: planted faults, coverage, mutants, random order."""
