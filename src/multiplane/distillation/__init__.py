"""From equal-but-for-errors bits at several ends to one secret key: correction, comparison, amplification."""
