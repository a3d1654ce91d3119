"""HTTP: paths, headers, status codes. Every handler asks a service and turns its answer into a response."""
