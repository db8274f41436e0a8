"""What adapters of several ports share: errors, jobs, keys' settings, collectable artifacts, AWS calls."""
