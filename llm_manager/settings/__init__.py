"""Settings of providers: where their values come from, which one counts, and whether it is right.

::

    defaults  <  the settings file  <  the environment  <  code          weakest to strongest
                 file.py               environment.py      store.py

    store.py                        all of it in one object, and the one of this process
    sources.py                      what each layer says of one provider
    layers.py                       which value counts; a key never leaves its address
    provider_settings.py            what the constructor of a provider gets
    kinds.py, constructors.py       which kinds of providers there are, and what they take
    references.py, key_places.py    keys that are kept elsewhere
    names.py, values.py             what a setting is called and may be
    explaining.py, problems.py      for people: every value with its origin, all that is wrong
    differences.py                  what another reading has changed
    configuration.py                `ConfigurationManager`, for one provider written by hand
    parameters.py                   the names of settings and of capabilities

What this package must not do: know any kind of provider, or make one.
"""
