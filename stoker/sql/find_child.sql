-- The newest child of this name.
SELECT c.child_id, c.generation, j.state
FROM job_children c JOIN jobs j ON j.id = c.child_id
WHERE c.parent_id = %(parent_id)s AND c.name = %(name)s
ORDER BY c.generation DESC LIMIT 1
