"""How good a challenger is beside the champion, and whether it may go on."""
