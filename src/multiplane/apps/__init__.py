"""Small applications of shared states: each prints what it measured beside what theory predicts."""
