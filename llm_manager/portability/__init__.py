"""Takes a conversation from one provider to another, and says what that costs.

::

    report.py      portability_report: what is kept, changed and lost, message by message
    conversion.py  portable: the same conversation in a form that can be sent
    turns.py       which tool result belongs to which call
    target.py      what a target does with a message, found out by its own codec
"""
