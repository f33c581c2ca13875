SELECT id, name, paused, max_running, max_queue_length FROM apps WHERE name = %(app)s FOR NO KEY UPDATE
