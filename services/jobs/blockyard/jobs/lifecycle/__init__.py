"""The life of a job: states, verbs, the loop that reconciles them, and the list of all jobs."""
