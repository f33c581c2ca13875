-- FOR UPDATE holds new lanes of the tenant off until what is set here has committed.
SELECT id, name, weight, max_running, max_requests_per_s, max_waiting FROM tenants WHERE name = %(name)s FOR UPDATE
