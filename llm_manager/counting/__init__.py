"""Whether a conversation fits, and into what: a budget, a context window.

::

    TokenManager      a budget of tokens for each period: used, left, when it begins anew
    fits              will the prompt and its answer go into the model's context window?
    trim_messages     what to leave out so that they do; says what it left out
"""
