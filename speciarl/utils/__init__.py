"""What every part may use and what knows of none: atomic files, ends of commands."""
