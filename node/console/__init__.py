"""The console's files: one static page on /v1/stats and /v1/events. Served by node.http.pages."""
