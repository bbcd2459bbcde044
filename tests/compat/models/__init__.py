"""Plain models of what other code bases compute; they share no code with jitconv."""
