"""The room behind ``farm.compilation``: the table of settings, its kinds of values, its rules, its documentation.

Callers import from ``farm.compilation`` (or ``farm.settings.docs`` for the written table); what lies here is its
own affair.
"""
