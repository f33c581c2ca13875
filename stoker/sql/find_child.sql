-- The newest child of this name, and whether the parent's events say that an attempt of it has heard of the child's end.
SELECT c.child_id, c.generation, j.state, j.state IN ('failed', 'cancelled') AND EXISTS (
    SELECT 1 FROM job_events e
    WHERE e.job_id = c.parent_id AND e.kind = 'log'
      AND e.data @> jsonb_build_object('child', jsonb_build_object('id', c.child_id::text, 'has_ended', true))
) AS failure_was_heard
FROM job_children c JOIN jobs j ON j.id = c.child_id
WHERE c.parent_id = %(parent_id)s AND c.name = %(name)s
ORDER BY c.generation DESC LIMIT 1
