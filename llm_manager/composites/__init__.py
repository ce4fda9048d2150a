"""Providers that consist of others; each is a provider itself.

::

    base.py       CompositeProvider: members, models, status, passing requests on
    fallback.py   FallbackProvider: one after the other
    multi.py      MultiProvider: several at once; combining.py: one answer out of several
    switching.py  SwitchingProvider: one of them, until somebody switches
    balanced.py   BalancedProvider: whoever has the most time; strategies.py: who that is

    members.py    what a composite has to do with its members: starting, stopping, listening
    standing.py   what the state of the members says about the composite
    passing.py    one request passed on to one member
    failures.py   one error out of several
"""
