"""Ways to run a network of pairs, side by side on one scenario: for studies, it looks at true states."""
