"""SQL: `database` is the port, `sqlite` its embedded implementation, `schema` the shared metadata, `migrations` its history."""
