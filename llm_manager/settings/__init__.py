"""Settings of providers: where their values come from, which one counts, and whether it is right.

::

    defaults  <  the settings file  <  the environment  <  code          weakest to strongest
                 file.py               environment.py      store.py

    store.py            all of it in one object, and the one of this process
    layers.py           which value counts, and why; a key never leaves its address
    constructors.py     what a kind of provider takes
    references.py       keys that are kept elsewhere: variable, keyring, file, function
    names.py, values.py what a setting is called and may be; errors name the place of a bad one
    configuration.py    `ConfigurationManager`, for one provider that is written by hand
    parameters.py       the names of settings and of capabilities

What this package must not do: know any kind of provider, or make one.
"""
