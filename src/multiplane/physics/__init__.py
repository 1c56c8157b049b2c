"""Laws of nature as arithmetic, each with its source."""
