"""Providers that consist of others; each is a provider itself.

::

    base.py       CompositeProvider: members, status, new settings
    models.py     whose model is meant, and what all models are together
    fallback.py   FallbackProvider: one after the other
    multi.py      MultiProvider: several at once; combining.py: one answer out of several;
                  contender.py: one in a race
    switching.py  SwitchingProvider: one of them, until somebody switches
    balanced.py   BalancedProvider: whoever has the most time; strategies.py: who that is

    seats.py      the places of the members: providers, or the names of some
    members.py    what a composite has to do with its members: starting, stopping, policies
    announcing.py what is announced of the parts of a request, and by whom
    standing.py   what the state of the members says about the composite
    passing.py    one request passed on to one member
    failures.py   one error out of several
"""
