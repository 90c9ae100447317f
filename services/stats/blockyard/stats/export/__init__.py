"""The same figures for OpenTelemetry and for Prometheus, from one table (`instruments`)."""
