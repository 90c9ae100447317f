"""The drivers: a module or package here is one (see `catalogue`). They know neither each other nor the graph."""
