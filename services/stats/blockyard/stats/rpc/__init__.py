"""StatsService over the model: translates and delegates."""
