"""Being written by another helper than the graph's (taken over from brief B, item 4): do not edit here."""
