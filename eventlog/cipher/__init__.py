"""
Payloads sealed and opened, and the keys for that.

Only ``aead`` imports ``cryptography``, and only once keys are used. What needs no key (identities, the form
of envelopes, outlines) does without, so that a log is verified on a machine that has neither.
"""
