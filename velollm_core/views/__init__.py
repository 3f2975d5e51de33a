"""What people see of nouns that several commands show: tables, lines, progress bars."""
