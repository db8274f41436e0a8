"""What is told to whom: one alert for a cause, a reminder while it lasts, a word when it is over."""
