"""The catalogue of drivers: a module here is a driver, presence is registration."""
