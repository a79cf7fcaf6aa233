"""
Tests of how the code works, not of a promise: statement counts, what is remembered, single private values.

They notice a loss of speed that no other test notices, and mutants that no promise excludes. A refactor
that breaks one of them may change it or delete it.
"""
