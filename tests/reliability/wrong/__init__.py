"""Tables of wrong calls, by what they call; `wrong_calls.py` puts them together."""
