"""Backends: what every inference server can be asked, and the client that four of them share."""
