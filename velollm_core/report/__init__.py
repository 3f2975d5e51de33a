"""A measurement told to people: one page, and the same as Markdown, benchstat lines or JSON."""
