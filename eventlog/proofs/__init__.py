"""
Signed heads of a log, and proofs that events are under them.

A head is signed as a C2SP checkpoint. A proof shows one session's events and nothing of the others. What
checks a proof reads the proof and the signed head alone: ``checking`` imports no engine.
"""
