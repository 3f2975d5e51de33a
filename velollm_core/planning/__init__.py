"""From options to a plan: settings asked for, both sources of bytes, the answer and its tables."""
