"""Transports: how the bytes of a request reach a provider, and how those of its answer come back.

A transport is dumb: it opens, yields bytes, closes, and turns the exceptions of the library below
it into ours.  It knows no dialect and repeats nothing on its own judgement.
"""
