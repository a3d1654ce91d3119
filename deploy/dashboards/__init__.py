"""Grafana dashboards as code; the JSON that they make is in the chart."""
